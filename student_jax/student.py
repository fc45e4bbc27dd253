"""The student: its modules, what it returns, and how a budget in ATP becomes refinement steps."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from student_jax import config, cost, irp, layers, sizes
from student_jax import seed as original
from student_jax.irps import control, grid, language, vision
from student_jax.sage import h_module, orchestrator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StudentOutput:
    """What the student says, per sample. Dictionaries are keyed by feature name or by module name."""

    features: Any  # {name: array}, every distilled feature; with an H-module `saliency` [b, f, k] and `embedding` too
    energies: Any  # {module: float32 [b]}, of the returned state
    accounts: Any  # {module: orchestrator.Account}
    atp: Any  # float32 [b], spent on refinement steps, never above the budget; the base cost is in `Student.table`
    confidence: Any  # float32 [b] in [0, 1]: the H-module's, taught by the teacher's; without one 1 - mean energy

    @property
    def steps(self) -> dict[str, Array]:
        """{module: int32 [b]}, refinement steps run."""
        return {name: account.steps for name, account in self.accounts.items()}

    @property
    def reasons(self) -> dict[str, Array]:
        """{module: int32 [b]}, why each stopped: an irp.Reason."""
        return {name: account.reason for name, account in self.accounts.items()}


class Student(nnx.Module):
    """Modules that share a budget, each reading what those before it found. Runs from observations, without the
    teacher."""

    def __init__(self, settings: config.StudentConfig, *, rngs: nnx.Rngs):
        self.config = settings
        if settings.seed:
            self.seed = original.Seed(settings.seed, settings.target, rngs=rngs)
            return
        self.vision = vision.VisionIrp(settings.vision, settings.target, rngs=rngs)
        if settings.language:
            self.language = language.LanguageIrp(settings.language, settings.vision, settings.target, rngs=rngs)
        if settings.control:
            self.control = self._control(settings.control, settings.actions, rngs)
        if settings.grid:
            self.grid = grid.GridIrp(settings.grid, settings.vision, rngs=rngs)
        if settings.h_module:
            self.h_module = self._h_module(settings, rngs)

    def _h_module(self, settings: config.StudentConfig, rngs: nnx.Rngs) -> h_module.HModule:
        return h_module.HModule(
            settings.h_module,
            seen=settings.vision,
            language=settings.language,
            control=settings.control,
            state=settings.actions.state,
            steps={name: module.description.max_steps for name, module in self.modules.items()},
            rngs=rngs,
        )

    def _control(self, settings: sizes.ControlConfig, actions: sizes.ActionSpace, rngs: nnx.Rngs) -> control.ControlIrp:
        return control.ControlIrp(settings, actions, context=self.config.language.width, rngs=rngs)

    @property
    def modules(self) -> dict[str, irp.Irp]:
        """In the order in which they run, which is that of the trust axis."""
        return {name: getattr(self, name) for name in ("vision", "language", "control", "grid") if hasattr(self, name)}

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Modules whose energy means nothing: the vision of a student of grids, which learns what the grids ask for and
        not how far it is from a teacher's tokens."""
        return ("vision",) if self.config.grid else ()

    def with_control(self, settings: sizes.ControlConfig, actions: sizes.ActionSpace, *, rngs: nnx.Rngs) -> "Student":
        """The same vision and language with a fresh Control IRP, for another action space."""
        other = nnx.clone(self)
        other.config = dataclasses.replace(self.config, control=settings, actions=actions)
        other.control = other._control(settings, actions, rngs)
        return other

    def folded(self) -> "Student":
        """The same function with fewer values and products, for inference only."""
        other = nnx.clone(self)
        for name in ("vision", "language"):
            if name in self.modules:
                setattr(other, name, getattr(self, name).folded())
        return other

    def resting(self) -> "Student":
        """The student as it rests between calls for inference: folded, its kernels held in their compute dtype."""
        return layers.narrowed(self.folded())

    def table(self, inputs: irp.Inputs) -> dict[str, cost.Flops]:
        """FLOPs (and ATP) per module for inputs of these static shapes; their context is not needed."""
        if "language" in self.modules:
            shape = (1, self.language.positions(inputs), self.config.language.width)
            fused = {"tokens": jax.ShapeDtypeStruct(shape, jnp.float32), "mask": None}
            inputs = dataclasses.replace(inputs, context={"language": fused})
        return {name: module.flops(inputs) for name, module in self.modules.items()}

    def prepared(self, inputs: irp.Inputs, key: Array, *, name: str) -> irp.Inputs:
        """`inputs` with the context that module `name` reads: each module before it after all its steps.

        For training and checking one module; wrap it in `jax.lax.stop_gradient` where those before are frozen.
        """
        for index, (before, module) in enumerate(self.modules.items()):
            if before == name:
                return inputs
            state = irp.unroll(module, inputs, jax.random.fold_in(key, index), module.description.max_steps)[-1]
            inputs = _told(inputs, before, module, state)
        raise ValueError(f"No module {name!r}; this student has {list(self.modules)}.")

    def __call__(
        self,
        inputs: irp.Inputs,
        atp: Float[Array, " b"],
        trust: Float[Array, "b m"],
        key: Array,
        *,
        mode: Literal["scan", "while"] = "while",
    ) -> StudentOutput:
        """Refine every module within its share of `atp`, split by `trust` in [0, 1] (in the order of `modules`).

        The budget buys refinement steps. The first state and the reading of the features are always paid, so that a
        budget of zero still gives a valid output; `table` lists both.
        """
        modules = self.modules
        if trust.shape[1] != len(modules):
            raise ValueError(f"trust must be [b, {len(modules)}] for modules {list(modules)}; got {trust.shape}.")
        found = orchestrator.run(self, inputs, atp, trust, key, mode=mode)
        features = {}
        for name, module in modules.items():
            features |= module.output(found.states[name])
        energies = {name: state.energy for name, state in found.states.items()}
        judged = [energy for name, energy in energies.items() if name not in self.unjudged]
        confidence = 1.0 - sum(judged) / len(judged)
        if found.brief is not None:
            features["embedding"] = found.embedding
            features["saliency"] = self.h_module.told(found.brief, self.config.target)
            confidence = self.h_module.confidence(found.brief, found.states["control"].x["hidden"])
        spent = sum(account.spent for account in found.accounts.values())
        return StudentOutput(features, energies, found.accounts, spent, confidence)


def _told(inputs: irp.Inputs, name: str, module: irp.Irp, state: irp.State) -> irp.Inputs:
    """`inputs` with what later modules read of this one."""
    if not isinstance(module, irp.Source):
        return inputs
    return dataclasses.replace(inputs, context=inputs.context | {name: module.context(state)})
