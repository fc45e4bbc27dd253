"""The training state: pure dicts, with only the stage's leaves in `params`, so that a frozen leaf cannot move."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

Tree = dict[Any, Any]
Path = tuple[Any, ...]
Leaf = Any  # an array; unchecked, because jax also builds pytrees of shapes and shardings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes or reads besides the batch."""

    step: Leaf
    """int32 [], updates made so far."""
    params: Any
    """The stage's trainable leaves, float32."""
    frozen: Any
    """Every other leaf of the student, statistics among them."""
    opt_state: Any
    ema: Any
    """Running average of `params`, same tree."""


def initialise(
    make: Callable[[], nnx.Module], trains: Callable[[Path], bool]
) -> tuple[nnx.GraphDef, dict[Any, Any], dict[Any, Any]]:
    """`partition` of a fresh student, built in one compiled function: layer by layer it would compile every shape."""
    graph, _, _ = partition(nnx.eval_shape(make), trains)
    params, frozen = jax.jit(lambda: partition(make(), trains)[1:])()
    return graph, params, frozen


def partition(student: nnx.Module, trains: Callable[[Path], bool]) -> tuple[nnx.GraphDef, Tree, Tree]:
    """Splits a student into (graph, params, frozen): `nnx.Param` leaves whose path `trains`, and all the rest."""

    def trainable(path: Path, leaf: Any) -> bool:
        return isinstance(leaf, nnx.Param) and trains(path)

    graph, params, frozen = nnx.split(student, trainable, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(frozen)


def merge(graph: nnx.GraphDef, params: Tree, frozen: Tree) -> nnx.Module:
    """The inverse of `partition`; safe inside jit."""
    return nnx.merge(graph, params, frozen)


def create(params: Tree, frozen: Tree, optimiser: optax.GradientTransformation) -> TrainState:
    """The state before the first step; the average starts at the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        frozen=frozen,
        opt_state=optimiser.init(params),
        ema=jax.tree.map(jnp.copy, params),
    )


def replace_leaves(tree: Tree, values: dict[Path, Any]) -> Tree:
    """A copy of a nested dict with the leaves at these paths replaced; a path that is not there is a KeyError."""
    for path, value in values.items():
        tree = _replace_leaf(tree, path, value)
    return tree


def _replace_leaf(tree: Tree, path: Path, value: Any) -> Tree:
    head, *rest = path
    if head not in tree:
        raise KeyError(f"no leaf {head!r}; there are {sorted(map(str, tree))}")
    return tree | {head: _replace_leaf(tree[head], tuple(rest), value) if rest else value}
