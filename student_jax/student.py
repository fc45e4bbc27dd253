"""The student: its modules, what it returns, and how a budget in ATP becomes refinement steps."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from student_jax import config, cost, irp
from student_jax.irps import vision


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StudentOutput:
    """What the student says, per sample. Dictionaries are keyed by feature name or by module name."""

    features: Any  # {name: array}, every distilled feature
    energies: Any  # {module: float32 [b]}, of the returned state
    steps: Any  # {module: int32 [b]}, refinement steps run
    reasons: Any  # {module: int32 [b]}, an irp.Reason
    atp: Any  # float32 [b], spent on refinement steps, never above the budget; the base cost is in `Student.table`
    confidence: Any  # float32 [b] in [0, 1], 1 - mean energy: derived, the teacher has none


class Student(nnx.Module):
    """Modules that share a budget. Runs from observations, without the teacher."""

    def __init__(self, settings: config.StudentConfig, *, rngs: nnx.Rngs):
        self.config = settings
        self.vision = vision.VisionIrp(settings.vision, settings.target, rngs=rngs)

    @property
    def modules(self) -> dict[str, irp.Irp]:
        """In the order of the trust axis."""
        return {"vision": self.vision}

    def folded(self) -> "Student":
        """The same function with fewer values and products, for inference only."""
        other = nnx.clone(self)
        other.vision = self.vision.folded()
        return other

    def table(self, inputs: irp.Inputs) -> dict[str, cost.Flops]:
        """FLOPs (and ATP) per module for inputs of these static shapes."""
        return {name: module.flops(inputs) for name, module in self.modules.items()}

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
        shares, table = cost.shares(atp, trust), self.table(inputs)
        out = StudentOutput({}, {}, {}, {}, jnp.zeros(atp.shape, jnp.float32), jnp.zeros(atp.shape, jnp.float32))
        for index, (name, module) in enumerate(modules.items()):
            price = table[name].step_atp
            budget = cost.affordable(shares[:, index], price, max_steps=module.description.max_steps)
            state, trace = irp.refine(
                module, inputs, jax.random.fold_in(key, index), budget, self.config.halt, mode=mode
            )
            out = StudentOutput(
                out.features | module.output(state),
                out.energies | {name: state.energy},
                out.steps | {name: trace.steps},
                out.reasons | {name: trace.reason},
                out.atp + trace.steps * jnp.float32(price),
                out.confidence + (1.0 - state.energy) / len(modules),
            )
        return out
