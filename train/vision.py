"""The vision component against the teacher's image tokens: what it trains on and how a validation scores it.

A sample is one frame of a grid, or all views of a robot; the teacher's vision tower sees every tile on its own. Batches
are dicts with video uint8 [b, 1, v, h, w, 3], image_tokens bf16 [b, v, t, d], vision_attention f32 [b, v, t], valid
bool [b].
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bridge import standardise
from student_jax import irp, layers, remat
from student_jax.irps.vision import VisionIrp
from student_jax.student import Student
from train import data, losses
from train.state import Path

Batch = dict[str, Array]
FALL = 0.02
"""Relative fall of the error that every refinement step is asked for."""
MOST_TOKENS = 1 << 18
"""Tokens behind the standardisation: 128 per channel at the real teacher's width, half a minute on two cores."""


def statistics(frames: data.Frames) -> dict[Path, Any]:
    """The PHI-S mean and basis of the training split's image tokens."""
    moments = None
    for tokens in data.token_sample(frames, "image_tokens", most=MOST_TOKENS):
        moments = moments or standardise.Moments(tokens.shape[-1])
        moments.add(tokens)
    fit = standardise.phi_s(moments.mean(), moments.covariance())
    return {("vision", "mean"): fit.mean, ("vision", "basis"): fit.basis}


def calibrate(summary: dict[str, float]) -> dict[Path, Any]:
    """The median validation error, which turns a predicted error into an energy."""
    return {("vision", "error_scale"): np.float32(summary["median_error"])}


def inputs(batch: Batch) -> irp.Inputs:
    """The observation: blank state and text where the batch has none, a frame mask that is False for padding."""
    size, times, views = batch["video"].shape[:3]
    return irp.Inputs(
        video=batch["video"],
        state=batch.get("state", jnp.zeros((size, 1, 1))),
        tokens=batch.get("tokens", jnp.zeros((size, 1), jnp.int32)),
        token_mask=batch.get("token_mask", jnp.zeros((size, 1), bool)),
        frame_mask=jnp.broadcast_to(batch["valid"][:, None, None], (size, times, views)),
    )


def standardised(tokens: Array, mean: Float[Array, " d"], basis: Float[Array, "d d"]) -> Float[Array, "*n d"]:
    """The teacher's tokens in PHI-S units; basis = phi * rotation, so its inverse is its transpose over phi²."""
    scale = jnp.square(basis).sum() / basis.shape[0]
    centred = tokens.astype(jnp.float32) - layers.along_last(mean, tokens)
    return jnp.matmul(centred, basis.T / scale, precision=jax.lax.Precision.HIGHEST)


def terms(student: Student, batch: Batch, key: Array) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """Every refinement step's losses, later steps weighing more; and each step's squared error for the log."""
    return state_losses(student.vision, _unroll(student.vision, batch, key), batch)


def state_losses(
    vision: VisionIrp, states: Sequence[irp.State], batch: Batch
) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """`terms` of states that were unrolled already."""
    target, mask = _target(vision, batch), frames(batch)
    judged = remat.part(lambda state: _state_terms(vision, state, batch, target))
    missed = remat.part(lambda state: losses.token_error(vision.standardised(state), target))
    parts = [judged(state) for state in states]
    weights = losses.rising(len(states) - 1)
    named = {name: losses.weighted([part[name] for part in parts], weights) for name in parts[0]}
    errors = [missed(state) for state in states]
    named["rise"] = losses.step_rise(errors, mask, fall=FALL)
    return named, {f"error/step_{k}": part["tokens"] for k, part in enumerate(parts)}


def frames(batch: Batch) -> Array:
    """Which frames count, bool [b, f]: those of valid samples, less those that do not show what the teacher saw."""
    if "clean" in batch:
        return batch["clean"]
    return jnp.broadcast_to(batch["valid"][:, None], batch["image_tokens"].shape[:2])


def _unroll(vision: VisionIrp, batch: Batch, key: Array) -> list[irp.State]:
    return irp.unroll(vision, inputs(batch), key, vision.description.max_steps)


def _target(vision: VisionIrp, batch: Batch) -> Float[Array, "b f t d"]:
    return standardised(batch["image_tokens"], vision.mean[...], vision.basis[...])


def _state_terms(vision: VisionIrp, state: irp.State, batch: Batch, target: Array) -> dict[str, losses.Term]:
    mask = frames(batch)
    predicted, log_attention = vision.standardised(state), vision.log_attention(state)
    predicted_log_error = vision.log_error(jax.lax.stop_gradient(state))
    return {
        "tokens": losses.token_mse(predicted, target, mask),
        "cosine": losses.token_cosine(predicted, target, mask),
        "attention": losses.attention_kl(log_attention, batch["vision_attention"], mask, tiles=vision.target.tiles),
        "energy": losses.log_error(predicted_log_error, losses.token_error(predicted, target), mask),
    }


def measure(student: Student, batch: Batch, key: Array) -> dict[str, Array]:
    """Sums of one validation batch, per refinement step k and channel d where it says so.

    sse [k, d] in the teacher's basis; total, square [d] of the teacher's tokens less the training mean; count [];
    cosine, attention_kl [k] and frames []; error, energy [b, k] per sample; valid [b].
    """
    vision, valid = student.vision, batch["valid"]
    target, mean = _target(vision, batch), layers.along_last(vision.mean[...], batch["image_tokens"])
    truth = jnp.where(valid[:, None, None, None], batch["image_tokens"].astype(jnp.float32) - mean, 0.0)
    states = _unroll(vision, batch, key)
    parts = [_state_terms(vision, state, batch, target) for state in states]
    return {
        "sse": jnp.stack(
            [_squared_error(vision.output(state)["image_tokens"] - mean, truth, valid) for state in states]
        ),
        "total": truth.sum(axis=(0, 1, 2)),
        "square": jnp.square(truth).sum(axis=(0, 1, 2)),
        "count": valid.sum() * truth.shape[1] * truth.shape[2],
        "cosine": jnp.stack([part["cosine"][0] for part in parts]),
        "attention_kl": jnp.stack([part["attention"][0] for part in parts]),
        "frames": valid.sum() * truth.shape[1],
        "error": jnp.stack([losses.token_error(vision.standardised(s), target).mean(axis=1) for s in states], axis=1),
        "energy": jnp.stack([state.energy for state in states], axis=1),
        "valid": valid,
    }


def _squared_error(predicted: Array, truth: Array, valid: Array) -> Float[Array, " d"]:
    return jnp.where(valid[:, None, None, None], jnp.square(predicted - truth), 0.0).sum(axis=(0, 1, 2))


def summarise(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """Validation metrics from the sums of all batches; R² of the last step is the task metric (DESIGN.md section 6)."""
    total, error, energy = gathered(parts)
    r2 = r_squared(total["sse"], total["total"], total["square"], total["count"])
    summary = {
        "r2_mean": r2[-1].mean(),
        "r2_p10": np.quantile(r2[-1], 0.1),
        "cosine": 1.0 - total["cosine"][-1] / total["frames"],
        "attention_kl": total["attention_kl"][-1] / total["frames"],
        "energy_rank_correlation": rank_correlation(energy[:, -1], error[:, -1]),
        "median_error": np.median(error[:, -1]),
    }
    summary |= {f"r2_mean/step_{k}": row.mean() for k, row in enumerate(r2)}
    summary |= {f"error/step_{k}": column.mean() for k, column in enumerate(error.T)}
    return {name: float(value) for name, value in summary.items()}


PER_SAMPLE = ("error", "energy", "valid")


def gathered(parts: Sequence[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(sums of all batches in float64, error [n, k] and energy [n, k] of the valid samples)."""
    sums = [name for name in parts[0] if name not in PER_SAMPLE]
    total = {name: np.asarray(sum(np.asarray(p[name], np.float64) for p in parts)) for name in sums}
    valid = np.concatenate([p["valid"] for p in parts])
    error, energy = (np.concatenate([p[name] for p in parts])[valid].astype(np.float64) for name in ("error", "energy"))
    return total, error, energy


def r_squared(sse: np.ndarray, total: np.ndarray, square: np.ndarray, count: float | np.ndarray) -> np.ndarray:
    """1 - SSE / SST per channel; a channel that never moves scores 1 without any error and 0 with some."""
    sst = square - total**2 / count
    dead = sst <= 1e-12 * np.maximum(square, 1e-300)
    return np.where(dead, np.where(sse > 0, 0.0, 1.0), 1.0 - sse / np.where(dead, 1.0, sst))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, ties broken by order; 0 where it is undefined."""
    if len(a) < 2:
        return 0.0
    ranks = [np.argsort(np.argsort(x, kind="stable"), kind="stable").astype(np.float64) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])
