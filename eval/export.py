"""Writes a student as an artifact folder that eval/policy.py runs without flax or the training code."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from eval import policy, products, scoring
from student_jax import cost
from student_jax.student import Student

PLATFORMS = ("cpu", "cuda")
Weights = dict[str, Any]  # arrays by dotted path


@dataclasses.dataclass(frozen=True)
class About:
    """What an artifact says of its origin, beside what the student itself knows."""

    preset: str
    averaged: bool
    """Whether the weights are the running average (EMA) of training."""
    embodiment: str
    run: dict[str, Any]
    """Seed, steps and the like of the training run."""
    teacher: dict[str, Any]
    """id, provenance, licence, digest."""


def write(folder: pathlib.Path, student: Student, about: About, *, video: tuple[int, ...]) -> dict[str, Any]:
    """Export, folded, for observations uint8 [b, *video] = [b, t, v, h, w, 3], b any; returns the meta written."""
    student = student.folded()
    weights, call = split(student)
    program = _export(call, weights, video, modules=len(student.modules))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(safetensors.numpy.save(weights))
    (folder / "program").write_bytes(program)
    meta = _meta(student, about, weights, call, video)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, allow_nan=False) + "\n")
    return meta


def split(student: Student) -> tuple[dict[str, np.ndarray], Callable]:
    """The student as flat weights by dotted path and a pure function
    (weights, video uint8 [b, t, v, h, w, 3], atp f32 [b], trust f32 [b, m], seed u32 []) -> Decision's fields."""
    graph, state = nnx.split(student)
    leaves, structure = jax.tree.flatten_with_path(nnx.to_pure_dict(state))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    weights = {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}

    def call(weights: Weights, video: jax.Array, atp: jax.Array, trust: jax.Array, seed: jax.Array) -> dict:
        model = nnx.merge(graph, jax.tree.unflatten(structure, [weights[name] for name in names]))
        said = model(scoring.inputs(video), atp, trust, jax.random.key(seed))
        return {
            "features": said.features,
            "energy": said.energies,
            "steps": said.steps,
            "confidence": said.confidence,
            "atp": said.atp,
        }

    return weights, call


def _export(call: Callable, weights: Weights, video: tuple[int, ...], *, modules: int) -> bytes:
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct
    arguments = (
        jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype), weights),
        shape((batch, *video), jnp.uint8),
        shape((batch,), jnp.float32),
        shape((batch, modules), jnp.float32),
        shape((), jnp.uint32),
    )
    return jax.export.export(jax.jit(call), platforms=PLATFORMS)(*arguments).serialize()


def _meta(student: Student, about: About, weights: Weights, call: Callable, video: tuple[int, ...]) -> dict[str, Any]:
    blank = jnp.zeros((1, *video), jnp.uint8)
    flops = student.table(scoring.inputs(blank))
    traced = jax.make_jaxpr(call)(weights, blank, *_plain(len(flops)))
    steps = {name: module.description.max_steps for name, module in student.modules.items()}
    return {
        "format": policy.FORMAT,
        "video": list(video),
        "modules": list(student.modules),
        "atp": {
            "flop_per_atp": cost.FLOP_PER_ATP,
            "base": {name: entry.base_atp for name, entry in flops.items()},
            "step": {name: entry.step_atp for name, entry in flops.items()},
            "max_steps": steps,
            # Half a step of slack, so that no rounding of the split loses the last one; what is spent is reported.
            "full": sum((steps[name] + 0.5) * entry.step_atp for name, entry in flops.items()),
        },
        "matrix": dataclasses.asdict(products.dominant(products.products(traced))),
        "parameters": sum(leaf.size for leaf in weights.values()),
        "student": dataclasses.asdict(student.config),
        "tokenizer": None,
        "statistics": None,
        "digest": digest(weights),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
        **dataclasses.asdict(about),
    }


def parameters(student: Student) -> int:
    """Values of the student as it is shipped: folded, constants included."""
    return sum(leaf.size for leaf in jax.tree.leaves(split(student.folded())[0]))


def digest(weights: dict[str, np.ndarray]) -> str:
    """sha256 over names, shapes, dtypes and bytes of the weights."""
    found = hashlib.sha256()
    for name, leaf in sorted(weights.items()):
        found.update(f"{name} {leaf.shape} {leaf.dtype}\n".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def _plain(modules: int) -> tuple[np.ndarray, ...]:
    return np.ones(1, np.float32), np.ones((1, modules), np.float32), np.uint32(0)
