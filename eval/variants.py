"""The types in which an exported student computes and its kernels rest: float32, bfloat16, int8."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from student_jax import layers
from student_jax.student import Student

Dtype = Literal["float32", "bfloat16", "int8"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
SCALE = ".scale"
"""Ends the name of the scales float32 [1, o] of an int8 kernel [..., i, o]."""
MOST = 127
Weights = dict[str, Any]  # arrays by dotted path


def own(student: Student) -> Dtype:
    """The type that a student's large products were trained in."""
    return (student.config.seed or student.config.vision).dtype


def computed(student: Student, dtype: Dtype) -> Student:
    """The same weights in a student whose large products are computed in float32, or bfloat16 (for int8 too). Give it
    one that is not folded."""
    compute = "float32" if dtype == "float32" else "bfloat16"
    parts = {field.name: getattr(student.config, field.name) for field in dataclasses.fields(student.config)}
    changed = {name: dataclasses.replace(part, dtype=compute) for name, part in parts.items() if hasattr(part, "dtype")}
    settings = dataclasses.replace(student.config, **changed)
    like = nnx.eval_shape(lambda: Student(settings, rngs=nnx.Rngs(0)))
    return nnx.merge(nnx.graphdef(like), nnx.state(student))


def kernels(student: Student) -> tuple[str, ...]:
    """Names, among the weights, of the kernels of its bfloat16 products."""
    large = (layers.Linear, layers.PatchEmbedding)
    found = [(path, part) for path, part in nnx.iter_modules(student) if isinstance(part, large)]
    return tuple(sorted(".".join(map(str, (*path, "kernel"))) for path, part in found if part.dtype == jnp.bfloat16))


def packed(weights: Weights, names: tuple[str, ...], dtype: Dtype) -> Weights:
    """The weights as they rest in a file: the kernels named in `dtype`, everything else as it is."""
    if dtype == "float32":
        return weights
    if dtype == "bfloat16":
        return weights | {name: weights[name].astype(ml_dtypes.bfloat16) for name in names}
    found = dict(weights)
    for name in names:
        found[name], found[name + SCALE] = quantise(weights[name])
    return found


def quantise(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [..., o] to (int8 [..., o], scale float32 [1, ..., 1, o]): symmetric, per output channel."""
    most = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    scale = np.where(most > 0, most / MOST, 1.0).astype(np.float32)
    return np.clip(np.rint(kernel / scale), -MOST, MOST).astype(np.int8), scale


def unpacked(weights: Weights) -> Weights:
    """Inside a program: int8 kernels as bfloat16 ones."""
    scales = {name.removesuffix(SCALE): weights[name] for name in weights if is_scale(name, weights)}
    wide = {name: weights[name].astype(jnp.float32) * scale for name, scale in scales.items()}
    rest = {name: leaf for name, leaf in weights.items() if not is_scale(name, weights)}
    return rest | {name: kernel.astype(jnp.bfloat16) for name, kernel in wide.items()}


def is_scale(name: str, weights: Weights) -> bool:
    """Whether a weight is the scales of an int8 kernel; a norm has a `scale` of its own."""
    kernel = weights.get(name.removesuffix(SCALE))
    return name.endswith(SCALE) and kernel is not None and kernel.dtype == jnp.int8


def size(weights: Weights) -> int:
    """Bytes."""
    return sum(jax.dtypes.canonicalize_dtype(leaf.dtype).itemsize * leaf.size for leaf in weights.values())
