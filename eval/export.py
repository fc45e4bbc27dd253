"""Writes a student as an artifact folder that eval/policy.py runs without flax or the training code.

`python -m eval.export --run RUN --out ARTIFACT`; the command line is eval/export_command.py.
"""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bridge.embodiment import Embodiment
from eval import artifact, live, scoring, units, variants
from eval.artifact import About, Kit
from eval.variants import Dtype, Weights
from student_jax import irp
from student_jax.student import Student, StudentOutput

PLATFORMS = ("cpu", "cuda", "tpu")
OWN = ("saliency",)
"""Features that explain the student's own decision: always told."""
Given = dict[str, Any]  # arrays by name


class ExportError(ValueError):
    """A student that cannot be exported as asked."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """A student as it is shipped."""

    student: Student
    """Folded."""
    weights: dict[str, np.ndarray]
    """As they rest in the file."""
    call: Callable
    """As `split` gives it, for these weights."""
    dtype: Dtype


def write(
    folder: pathlib.Path,
    student: Student,
    about: About,
    kit: Kit,
    *,
    dtype: Dtype | None = None,
    platforms: tuple[str, ...] = PLATFORMS,
) -> dict[str, Any]:
    """Export for observations of the kit, any number at once; returns the meta written.

    dtype: None: the one that the student was trained in. ExportError or UnitsError where the student or its robot
    cannot be exported; artifact.FolderError where the folder holds something else.
    """
    artifact.check(folder)
    if kit.body is None and not kit.features:
        raise ExportError("a student that does not act says nothing without features: export it with them")
    made = prepare(student, kit, dtype)
    program = _program(made, given_shapes(made.student, kit), platforms)
    one = given_shapes(made.student, kit, batch=1)
    meta = artifact.meta(made.student, about, kit, call=made.call, weights=made.weights, shapes=one)
    meta |= {"dtype": made.dtype, "platforms": list(platforms)}
    return artifact.write(folder, meta, program=program, weights=made.weights)


def prepare(student: Student, kit: Kit, dtype: Dtype | None = None) -> Exported:
    """The student folded, in a type, as weights and a function of them: those weights alone that it reads."""
    dtype = dtype or variants.own(student)
    if kit.body is not None:
        units.check(kit.body)
    folded = variants.computed(student, dtype).folded()
    weights, call = split(folded, kit.body, features=kit.features)
    traced = jax.make_jaxpr(call)(weights, given_shapes(folded, kit, batch=1))
    read = {name for name, used in zip(sorted(weights), live.used(traced.jaxpr), strict=False) if used}
    rest = {name: leaf for name, leaf in weights.items() if name not in read}
    kernels = tuple(name for name in variants.kernels(folded) if name in read)
    weights = variants.packed({name: leaf for name, leaf in weights.items() if name in read}, kernels, dtype)

    def asked(weights: Weights, given: Given) -> dict[str, Any]:
        unread = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in rest.items()}
        return call(variants.unpacked(weights) | unread, given)

    return Exported(folded, weights, asked, dtype)


def split(
    student: Student, body: Embodiment | None = None, *, features: bool = True
) -> tuple[dict[str, np.ndarray], Callable]:
    """The student as flat weights by dotted path and a pure function call(weights, given) -> outputs.

    given, by name: `video` uint8 [b, t, v, h, w, 3], `atp` float32 [b], `trust` float32 [b, m], `seed` uint32 []; for
    language `tokens` int32 [b, l] and `token_mask` bool [b, l]; for actions `state` float32 [b, 1, d]. outputs: the
    fields of policy.Decision, `actions` float32 [b, h, a] joined over the parts. body: in whose physical units state
    and actions are; None: in normalised ones. features: whether what it says of the teacher's is there too.
    """
    graph, state = nnx.split(student)
    leaves, structure = jax.tree.flatten_with_path(nnx.to_pure_dict(state))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    weights = {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}

    def call(weights: Weights, given: Given) -> dict[str, Any]:
        model = nnx.merge(graph, jax.tree.unflatten(structure, [weights[name] for name in names]))
        said = model(inputs(given, body), given["atp"], given["trust"], jax.random.key(given["seed"]))
        found = _outputs(said, body)
        if not features:
            found["features"] = {name: value for name, value in found["features"].items() if name in OWN}
        return found

    return weights, call


def inputs(given: Given, body: Embodiment | None) -> irp.Inputs:
    """As the student reads them: what is not given is blank."""
    blank = scoring.inputs(given["video"])
    present = {name: given[name] for name in ("state", "tokens", "token_mask") if name in given}
    if body is not None and "state" in present:
        present["state"] = units.normalise(body, present["state"])
    return dataclasses.replace(blank, **present)


def _outputs(said: StudentOutput, body: Embodiment | None) -> dict[str, Any]:
    features = dict(said.features)
    actions = features.pop("actions", None)
    found = {
        "features": features,
        "energy": said.energies,
        "steps": said.steps,
        "reason": said.reasons,
        "confidence": said.confidence,
        "atp": said.atp,
    }
    if actions is None:
        return found
    return found | {"actions": actions if body is None else units.denormalise(body, actions)}


def given_shapes(student: Student, kit: Kit, batch: Any = None) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what a call is given; batch: rows, None for any number. ExportError for a student that is asked
    otherwise."""
    settings = student.config
    if settings.grid or settings.seed:
        raise ExportError(
            "this student solves grids: it is asked with pairs of frames and a mask, which an artifact has no form "
            "for yet; run it with eval.benchmark or eval.explain, or export a student that sees or acts"
        )
    (batch,) = (batch,) if batch else jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct
    found = {
        "video": shape((batch, *kit.video), jnp.uint8),
        "atp": shape((batch,), jnp.float32),
        "trust": shape((batch, len(student.modules)), jnp.float32),
        "seed": shape((), jnp.uint32),
    }
    if settings.language:
        text = (batch, settings.language.length)
        found |= {"tokens": shape(text, jnp.int32), "token_mask": shape(text, jnp.bool_)}
    if settings.actions:
        width = sum(kit.body.dimensions("state").values()) if kit.body else settings.actions.state
        found["state"] = shape((batch, 1, width), jnp.float32)
    return found


def _program(made: Exported, shapes: dict[str, Any], platforms: tuple[str, ...]) -> bytes:
    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), made.weights)
    with _without_tracebacks():
        return jax.export.export(jax.jit(made.call), platforms=platforms)(weights, shapes).serialize()


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """No file and line of whoever asks for a program in it: the same student gives the same bytes."""
    before = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def parameters(student: Student) -> int:
    """Values of the student as it is shipped: folded, constants included."""
    return sum(leaf.size for leaf in jax.tree.leaves(split(student.folded())[0]))


if __name__ == "__main__":
    from eval import export_command  # imports this module under its own name, so that its types are the ones used

    sys.exit(export_command.main())
