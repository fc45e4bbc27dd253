"""How a validation scores a robot student: fused tokens, text features, actions at the teacher's own x_0."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from student_jax.student import Student
from train import losses, robot, vision

TOKEN_ERRORS = ("vision_error", "language_error")


def measure_language(student: Student, batch: robot.Batch, key: Array) -> dict[str, Array]:
    """Sums of one validation batch: sse [k], total, square [c], count [] of the fused tokens in the teacher's basis,
    text_sse, text_total, text_square; error, energy [b, k]; valid [b]."""
    module = student.language
    states = robot.unroll(student, batch, key, until="language").states["language"]
    valid = batch["valid"]
    mean = module.mean[...].reshape(1, 1, 1, -1)
    truth = jnp.where(valid[:, None, None, None], batch["fused_tokens"].astype(jnp.float32) - mean, 0.0)
    said = [module.output(state) for state in states]
    tokens = [y["adapted_features"] for y in said]
    errors = [jnp.square(jnp.where(valid[:, None, None, None], y - mean, 0.0) - truth) for y in tokens]
    text = (batch["text_features"] - module.text_mean[...][None]) * valid[:, None]
    text_error = jnp.square(said[-1]["text_features"] - batch["text_features"]) * valid[:, None]
    target = vision.standardised(batch["fused_tokens"], module.mean[...], module.basis[...])
    judged = [module.standardised(state) for state in states]
    return {
        "sse": jnp.stack([e.sum(axis=(0, 1, 2)) for e in errors]),
        "total": truth.sum(axis=(0, 1, 2)),
        "square": jnp.square(truth).sum(axis=(0, 1, 2)),
        "count": valid.sum() * truth.shape[1] * truth.shape[2],
        "text_sse": text_error.sum(axis=0)[None],
        "text_total": text.sum(axis=0),
        "text_square": jnp.square(text).sum(axis=0),
        "text_count": valid.sum(),
        "error": jnp.stack([losses.token_error(y, target).mean(axis=1) for y in judged], axis=1),
        "energy": jnp.stack([state.energy for state in states], axis=1),
        "valid": valid,
    }


def summarise_language(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """R² of fused tokens (mean and 10th percentile over channels, per step) and of text features."""
    total, error, energy = vision.gathered(parts)
    r2 = vision.r_squared(total["sse"], total["total"], total["square"], total["count"])
    text = vision.r_squared(total["text_sse"], total["text_total"], total["text_square"], total["text_count"])
    summary = {
        "fused_r2": r2[-1].mean(),
        "fused_r2_p10": np.quantile(r2[-1], 0.1),
        "text_r2": text.mean(),
        "energy_rank_correlation": vision.rank_correlation(energy[:, -1], error[:, -1]),
        "median_error": np.median(error[:, -1]),
    }
    summary |= {f"fused_r2/step_{k}": row.mean() for k, row in enumerate(r2)}
    return {name: float(value) for name, value in summary.items()}


def unrolled(student: Student, batch: robot.Batch, key: Array, *, depth: robot.Depth | None = None) -> robot.Unrolled:
    """All modules, on as many draws as training uses."""
    few = batch | {"noise": batch["noise"][:, : robot.DRAWS]}
    return robot.unroll(student, few, key, until="control", depth=depth)


def measure(student: Student, batch: robot.Batch, key: Array) -> dict[str, Array]:
    """`score` of a student that was unrolled for it."""
    return score(student, batch, unrolled(student, batch, key))


def score(student: Student, batch: robot.Batch, found: robot.Unrolled) -> dict[str, Array]:
    """Sums of one validation batch per refinement step k: over the teacher's draws, and of x_0 = 0 (`own`), from where
    the student acts, against what it is taught there.

    sse, residual_sse, own_sse [k]; total [a], square, residual_square [], own_total [a], own_square []; count,
    own_count []; error, energy [b, k] of each sample at x_0 = 0; valid [b]; vision_error, language_error [b] after
    their last steps.
    """
    module, states, draws = student.control, found.states["control"], found.draws
    count = draws.shape[0]
    shape = (-1, count + 1, *batch["demonstration"].shape[1:])
    valid = batch["valid"][:, None, None, None]
    teacher = jnp.where(valid, robot.limited(module, batch["actions"][:, draws]), 0.0)
    taught = jnp.where(valid[:, 0], robot.taught(module, batch), 0.0)
    answers = [jnp.where(valid, state.x["actions"].reshape(shape), 0.0) for state in states]
    said, own = [y[:, :-1] for y in answers], [y[:, -1] for y in answers]
    errors, missed = [jnp.square(y - teacher) for y in said], [jnp.square(y - taught) for y in own]
    return {
        "sse": jnp.stack([e.sum() for e in errors]),
        "residual_sse": jnp.stack([jnp.square(_residual(y) - _residual(teacher)).sum() for y in said]),
        "own_sse": jnp.stack([e.sum() for e in missed]),
        "total": teacher.sum(axis=(0, 1, 2)),
        "square": jnp.square(teacher).sum(),
        "residual_square": jnp.square(_residual(teacher)).sum(),
        "own_total": taught.sum(axis=(0, 1)),
        "own_square": jnp.square(taught).sum(),
        "own_count": batch["valid"].sum() * teacher.shape[2],
        "count": batch["valid"].sum() * count * teacher.shape[2],
        "error": jnp.stack([e.mean(axis=(1, 2)) for e in missed], axis=1),
        "energy": jnp.stack([state.energy.reshape(-1, count + 1)[:, -1] for state in states], axis=1),
        "valid": batch["valid"],
        **_token_errors(student, batch, found),
    }


def _token_errors(student: Student, batch: robot.Batch, found: robot.Unrolled) -> dict[str, Float[Array, " b"]]:
    """How far the tokens are off that the control was given, per sample."""
    errors = {}
    for name, target in (("vision", "image_tokens"), ("language", "fused_tokens")):
        module = student.modules[name]
        truth = vision.standardised(batch[target], module.mean[...], module.basis[...])
        said = module.standardised(found.states[name][-1])
        errors[f"{name}_error"] = losses.token_error(said, truth).mean(axis=1)
    return errors


def _residual(actions: Float[Array, "b n h a"]) -> Float[Array, "b n h a"]:
    """What depends on x_0: the difference to the mean over draws."""
    return actions - actions.mean(axis=1, keepdims=True)


def summarise(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """Validation metrics of actions (DESIGN.md section 6), of the last step and of each. `action_r2` and `residual_r2`:
    at drawn x_0 to the teacher's; `own_r2`: from x_0 = 0 to what is taught there."""
    total, error, energy = vision.gathered([{n: p[n] for n in p if n not in TOKEN_ERRORS} for p in parts])
    spread = total["square"] - np.square(total["total"]).sum() / total["count"]
    own_mean = total["own_total"] / total["own_count"]
    own = total["own_square"] - total["own_count"] * np.square(own_mean).sum()
    values = total["count"] * len(total["total"])
    summary = {"action_mse": total["sse"][-1] / values, "median_error": np.median(error[:, -1])}
    summary["energy_rank_correlation"] = vision.rank_correlation(energy[:, -1], error[:, -1])
    for name in TOKEN_ERRORS:
        summary[name] = np.median(np.concatenate([part[name][part["valid"]] for part in parts]))
    for name, sse, sst in (
        ("action_r2", total["sse"], spread),
        ("residual_r2", total["residual_sse"], total["residual_square"]),
        ("own_r2", total["own_sse"], own),
    ):
        summary[name] = 1 - sse[-1] / max(sst, 1e-12)
        summary |= {f"{name}/step_{k}": 1 - value / max(sst, 1e-12) for k, value in enumerate(sse)}
    return {name: float(value) for name, value in summary.items()}
