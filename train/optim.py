"""AdamW or Muon with warm-up, cosine and clipping; the averaged weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float, Int

from train import config

DECAYED = ("kernel",)
"""Names of the leaves that weight decay pulls on: matrices, never norms, biases, embeddings or learned queries."""
ADAM_RMS = 0.2
"""Root mean square of AdamW's steps at rate 1, which Muon's are scaled to (arXiv:2502.16982)."""


def make_schedule(recipe: config.Recipe, steps: int) -> optax.Schedule:
    """step -> learning rate: linear from 0 over the warm-up, then a cosine to `final_lr * lr` at `steps`."""
    warmup = min(round(recipe.warmup * steps), steps - 1)
    return optax.warmup_cosine_decay_schedule(
        init_value=recipe.lr if warmup == 0 else 0.0,
        peak_value=recipe.lr,
        warmup_steps=warmup,
        decay_steps=steps,
        end_value=recipe.lr * recipe.final_lr,
    )


def make_optimiser(recipe: config.Recipe, steps: int) -> optax.GradientTransformation:
    """Clip to a global norm, then AdamW on the schedule; or Muon for matrices and AdamW for the rest."""
    rate, decay = make_schedule(recipe, steps), {"weight_decay": recipe.weight_decay}
    if recipe.optimiser == "muon":
        moved = optax.contrib.muon(
            rate,
            **decay,
            weight_decay_mask=decay_mask,
            adam_b2=recipe.b2,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=ADAM_RMS,
        )
    else:
        moved = optax.adamw(rate, b2=recipe.b2, **decay, mask=decay_mask)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), moved)


def decay_mask(params: Any) -> Any:
    """True for every leaf whose own name is in DECAYED; same tree as `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) in DECAYED, params)


def matrices(params: Any) -> Any:
    """Muon's axes (input, output) for every leaf that is a matrix, None for the others; same tree as `params`."""
    axes = optax.contrib.MuonDimensionNumbers()
    return jax.tree.map(lambda decayed, leaf: axes if decayed and leaf.ndim == 2 else None, decay_mask(params), params)


def average(ema: Any, params: Any, step: Int[Array, ""], *, decay: float) -> Any:
    """The next averaged weights after `step` + 1 updates; decay warms up as min(decay, (1 + step) / (10 + step)).

    The warm-up keeps the average from remembering its initial value, so that no debiasing is needed.
    """
    rate = ema_rate(step, decay=decay)
    return jax.tree.map(lambda old, new: old + rate * (new - old), ema, params)


def ema_rate(step: Int[Array, ""], *, decay: float) -> Float[Array, ""]:
    """Share of the new weights in the average, in (0, 0.9]."""
    step = step.astype(jnp.float32)
    return 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
