"""The jitted functions of the loop: one training step, one validation batch, and each loss's share of the gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from train import config, losses, optim, sharding, stages, state

Metrics = dict[str, Array]


def objective(
    graph: nnx.GraphDef, stage: stages.Stage, weights: config.LossWeights, batch: Any, key: Array
) -> Callable[[Any, Any], tuple[dict[str, Array], Metrics]]:
    """(params, frozen) -> (each loss, weighted; what else the stage wants logged). Every value is a float32 scalar.

    A loss of weight 0 is left out, and what only it needs is not computed.
    """

    def terms(params: Any, frozen: Any) -> tuple[dict[str, Array], Metrics]:
        named, extras = stage.terms(state.merge(graph, params, frozen), batch, key)
        used = {name: weight for name in named if (weight := getattr(weights, name))}
        weighted = {name: weight * losses.mean(named[name]) for name, weight in used.items()}
        return weighted, {name: losses.mean(term) for name, term in extras.items()}

    return terms


def make_train_step(
    graph: nnx.GraphDef,
    stage: stages.Stage,
    optimiser: optax.GradientTransformation,
    schedule: optax.Schedule,
    options: config.Config,
    mesh: Mesh,
) -> Callable[[state.TrainState, Any, Array], tuple[state.TrainState, Metrics]]:
    """(state, batch, key) -> (next state, metrics). The state is donated; the key is folded with the step."""

    def train_step(now: state.TrainState, batch: Any, key: Array) -> tuple[state.TrainState, Metrics]:
        terms = objective(graph, stage, options.loss, batch, jax.random.fold_in(key, now.step))

        def total(params: Any) -> tuple[Array, tuple[dict[str, Array], Metrics]]:
            named, extras = terms(params, now.frozen)
            return sum(named.values()), (named, extras)

        (loss, (named, extras)), gradient = jax.value_and_grad(total, has_aux=True)(now.params)
        updates, opt_state = optimiser.update(gradient, now.opt_state, now.params)
        params = optax.apply_updates(now.params, updates)
        ema = optim.average(now.ema, params, now.step, decay=options.recipe.ema)
        metrics = {"loss": loss} | {f"loss/{name}": value for name, value in named.items()} | extras
        metrics |= {"gradient_norm": optax.tree.norm(gradient), "learning_rate": schedule(now.step)}
        return state.TrainState(now.step + 1, params, now.frozen, opt_state, ema), metrics

    whole, split = sharding.replicated(mesh), sharding.split(mesh)
    return jax.jit(train_step, in_shardings=(whole, split, whole), out_shardings=whole, donate_argnums=0)


def make_shares(
    graph: nnx.GraphDef, stage: stages.Stage, options: config.Config, mesh: Mesh
) -> Callable[[state.TrainState, Any, Array], Metrics]:
    """(state, batch, key) -> "share/NAME": the norm of each weighted loss's gradient over the sum of those norms."""

    def shares(now: state.TrainState, batch: Any, key: Array) -> Metrics:
        terms = objective(graph, stage, options.loss, batch, jax.random.fold_in(key, now.step))
        named, pull = jax.vjp(lambda params: terms(params, now.frozen)[0], now.params)
        names = sorted(named)

        def norm(pick: Array) -> Array:  # one backward pass at a time, compiled once
            (gradient,) = pull(dict(zip(names, pick, strict=True)))
            return optax.tree.norm(gradient)

        norms = jax.lax.map(norm, jnp.eye(len(names)))
        part = norms / jnp.maximum(norms.sum(), 1e-30)
        return {f"share/{name}": part[position] for position, name in enumerate(names)}

    whole, split = sharding.replicated(mesh), sharding.split(mesh)
    return jax.jit(shares, in_shardings=(whole, split, whole), out_shardings=whole)


def make_measure(
    graph: nnx.GraphDef, stage: stages.Stage, mesh: Mesh
) -> Callable[[Any, Any, Any, Array], dict[str, Array]]:
    """(params, frozen, batch, key) -> the stage's sums over one validation batch, on every device."""

    def measure(params: Any, frozen: Any, batch: Any, key: Array) -> dict[str, Array]:
        return stage.measure(state.merge(graph, params, frozen), batch, key)

    whole, split = sharding.replicated(mesh), sharding.split(mesh)
    return jax.jit(measure, in_shardings=(whole, whole, split, whole), out_shardings=whole)
