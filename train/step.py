"""The jitted functions of the loop: one training step, one validation batch, and each loss's share of the gradient."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from student_jax import remat
from train import config, losses, optim, program, sharding, stages, state

Metrics = dict[str, Array]
Terms = Callable[[Any, Any, Any, Array], tuple[losses.Terms, losses.Terms]]
"""(params, frozen, batch, key) -> (each loss that weighs something, what else the stage wants logged)."""


def make_terms(graph: nnx.GraphDef, stage: stages.Stage, options: config.Config, mesh: Mesh) -> Terms:
    """The stage's losses as a function of the parameters.

    A loss of weight 0 is left out, and what only it needs is not computed.
    """

    def terms(params: Any, frozen: Any, batch: Any, key: Array) -> tuple[losses.Terms, losses.Terms]:
        student = state.merge(graph, *(sharding.gathered(tree, mesh) for tree in (params, frozen)))
        with remat.recomputing(active=options.scale.remat):
            named, extras = stage.terms(student, batch, key)
        return {name: named[name] for name in named if getattr(options.loss, name)}, extras

    return terms


def weigh(named: losses.Terms, weights: config.LossWeights) -> Metrics:
    """Each loss's mean times its weight, float32 scalars."""
    return {name: getattr(weights, name) * losses.mean(loss) for name, loss in named.items()}


def gradient_of(
    terms: Terms, now: state.TrainState, batch: Any, key: Array, weights: config.LossWeights
) -> tuple[Metrics, Metrics, Any]:
    """(each weighted loss and their sum, the stage's extras, the gradient of the sum) over the whole batch at once."""

    def total(params: Any) -> tuple[Array, tuple[Metrics, Metrics]]:
        named, extras = terms(params, now.frozen, batch, key)
        weighted = weigh(named, weights)
        return sum(weighted.values()), (weighted, {name: losses.mean(term) for name, term in extras.items()})

    (loss, (weighted, extras)), gradient = jax.value_and_grad(total, has_aux=True)(now.params)
    return named_losses(loss, weighted), extras, gradient


def named_losses(loss: Array, weighted: Metrics) -> Metrics:
    """As they are logged."""
    return {"loss": loss} | {f"loss/{name}": value for name, value in weighted.items()}


def accumulated(
    terms: Terms,
    now: state.TrainState,
    part: Callable[[Array], tuple[Any, Array]],
    parts: int,
    weights: config.LossWeights,
    mesh: Mesh,
) -> tuple[Metrics, Metrics, Any]:
    """The same from `parts` parts of the batch, one after another; `part`: number -> (its rows, its key).

    A mean over the batch is not the mean of its parts' means where they count differently. So what is counted is added
    up first, which needs no forward pass, and every part's sums are then taken over the whole batch's counts.
    """
    numbers = jnp.arange(parts)
    counted = jax.lax.map(lambda number: losses.counts(terms(now.params, now.frozen, *part(number))[0]), numbers)
    counts = jax.tree.map(lambda each: each.sum(axis=0), counted)

    def total(params: Any, number: Array) -> tuple[Array, tuple[Metrics, losses.Terms]]:
        named, extras = terms(params, now.frozen, *part(number))
        weighted = weigh({name: losses.among(loss, counts[name]) for name, loss in named.items()}, weights)
        return sum(weighted.values()), (weighted, extras)

    def add(sums: Any, number: Array) -> tuple[Any, None]:
        (loss, aux), gradient = jax.value_and_grad(total, has_aux=True)(now.params, number)
        return jax.tree.map(operator.add, sums, (loss, *aux, gradient)), None

    loss, aux = jax.eval_shape(total, now.params, numbers[0])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (loss, *aux, now.params))
    nothing = (*nothing[:-1], sharding.shared(nothing[-1], mesh))
    (loss, weighted, extras, gradient), _ = jax.lax.scan(add, nothing, numbers)
    return named_losses(loss, weighted), {name: losses.mean(term) for name, term in extras.items()}, gradient


def parts_of(batch: Any, key: Array, parts: int, *, draws: bool) -> Callable[[Array], tuple[Any, Array]]:
    """number -> (every `parts`-th row of the batch, its key): rows that lie on a device stay there.

    Draws that a batch shares are the same in every part; where samples draw, each part has a key of its own.
    """

    def part(number: Array) -> tuple[Any, Array]:
        def take(leaf: Array) -> Array:
            rows = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:])
            return jax.lax.dynamic_index_in_dim(rows, number, axis=1, keepdims=False)

        return jax.tree.map(take, batch), jax.random.fold_in(key, number) if draws else key

    return part


def make_train_step(
    graph: nnx.GraphDef,
    stage: stages.Stage,
    optimiser: optax.GradientTransformation,
    schedule: optax.Schedule,
    options: config.Config,
    mesh: Mesh,
    *,
    like: state.TrainState,
) -> program.Program:
    """(state, batch, key) -> (next state, metrics). The state is donated; the key is folded with the step.

    like: the state, or its shapes.
    """
    terms, parts = make_terms(graph, stage, options, mesh), options.scale.accumulate

    def train_step(now: state.TrainState, batch: Any, key: Array) -> tuple[state.TrainState, Metrics]:
        key = jax.random.fold_in(key, now.step)
        if parts > 1:
            part = parts_of(batch, key, parts, draws=stage.draws)
            metrics, extras, gradient = accumulated(terms, now, part, parts, options.loss, mesh)
        else:
            metrics, extras, gradient = gradient_of(terms, now, batch, key, options.loss)
        updates, opt_state = optimiser.update(gradient, now.opt_state, now.params)
        params = optax.apply_updates(now.params, updates)
        ema = optim.average(now.ema, params, now.step, decay=options.recipe.ema)
        metrics |= extras | {"gradient_norm": optax.tree.norm(gradient), "learning_rate": schedule(now.step)}
        return state.TrainState(now.step + 1, params, now.frozen, opt_state, ema), metrics

    whole, split, places = sharding.replicated(mesh), sharding.split(mesh), sharding.placement(mesh, like)
    shardings = {"in_shardings": (places, split, whole), "out_shardings": (places, whole)}
    return program.Program(jax.jit(train_step, **shardings, donate_argnums=0), batch=1)


def make_shares(
    graph: nnx.GraphDef, stage: stages.Stage, options: config.Config, mesh: Mesh, *, like: state.TrainState
) -> program.Program:
    """(state, batch, key) -> "share/NAME": the norm of each weighted loss's gradient over the sum of those norms.

    Of a batch that is accumulated, the first part stands for all.
    """
    terms, parts = make_terms(graph, stage, options, mesh), options.scale.accumulate

    def shares(now: state.TrainState, batch: Any, key: Array) -> Metrics:
        key = jax.random.fold_in(key, now.step)
        if parts > 1:
            batch, key = parts_of(batch, key, parts, draws=stage.draws)(jnp.int32(0))
        named, pull = jax.vjp(lambda params: weigh(terms(params, now.frozen, batch, key)[0], options.loss), now.params)
        names = sorted(named)

        def norm(pick: Array) -> Array:  # one backward pass at a time, compiled once
            (gradient,) = pull(dict(zip(names, pick, strict=True)))
            return optax.tree.norm(gradient)

        norms = jax.lax.map(norm, jnp.eye(len(names)))
        part = norms / jnp.maximum(norms.sum(), 1e-30)
        return {f"share/{name}": part[position] for position, name in enumerate(names)}

    whole, split, places = sharding.replicated(mesh), sharding.split(mesh), sharding.placement(mesh, like)
    return program.Program(jax.jit(shares, in_shardings=(places, split, whole), out_shardings=whole), batch=1)


def make_measure(graph: nnx.GraphDef, stage: stages.Stage, mesh: Mesh, *, like: state.TrainState) -> program.Program:
    """(params, frozen, batch, key) -> the stage's sums over one validation batch, on every device."""

    def measure(params: Any, frozen: Any, batch: Any, key: Array) -> dict[str, Array]:
        params, frozen = (sharding.gathered(tree, mesh) for tree in (params, frozen))
        return stage.measure(state.merge(graph, params, frozen), batch, key)

    whole, split, places = sharding.replicated(mesh), sharding.split(mesh), sharding.placement(mesh, like)
    inputs = (places.ema, places.frozen, split, whole)
    return program.Program(jax.jit(measure, in_shardings=inputs, out_shardings=whole), batch=2)
