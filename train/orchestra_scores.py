"""How a validation scores an orchestrated student: its actions with all steps and with those that it asks for, its
saliency and its confidence against the teacher's."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from student_jax.sage import budget, h_module
from student_jax.student import Student
from train import disturb, orchestra, robot, robot_scores, vision

TOP = 0.1
"""Share of the tokens that a saliency map is compared by."""


def measure(student: Student, batch: robot.Batch, key: Array) -> dict[str, Array]:
    """`robot_scores.measure`, and per sample [b]: KL and overlap of the saliency with the teacher's; the action error
    with the steps that are asked for and with all; the share of ATP saved; both confidences."""
    whole = robot_scores.unrolled(student, batch, key)
    asked = robot_scores.unrolled(student, batch, key, depth=lambda brief: wanted(student, batch, brief))
    told = student.h_module.told(whole.brief, student.config.target)
    planned, errors = asked.depth, orchestra.action_errors(student, batch, asked)
    return robot_scores.score(student, batch, whole) | {
        "saliency_kl": orchestra.saliency_divergence(told, batch["saliency"]),
        "overlap": overlap(told, batch["saliency"]),
        "planned_error": jnp.take_along_axis(errors, planned["control"][:, None], axis=1)[:, 0],
        "full_error": orchestra.action_errors(student, batch, whole)[:, -1],
        "saved": 1.0 - spent(student, vision.inputs(batch), planned),
        "confidence": orchestra.sureness(student, whole)[-1],
        "teacher_confidence": batch["confidence"],
    }


OWN = ("saliency_kl", "overlap", "planned_error", "full_error", "saved", "confidence", "teacher_confidence")


def wanted(student: Student, batch: robot.Batch, brief: h_module.Brief) -> dict[str, Int[Array, " b"]]:
    """The steps that are asked for where the budget is ample."""
    scene = disturb.calm(vision.inputs(batch), len(student.modules), trust=h_module.USUAL_TRUST)
    return orchestra.steps(student, scene, orchestra.chosen(student, scene, brief))


def spent(student: Student, inputs: Any, steps: dict[str, Int[Array, " b"]]) -> Float[Array, " b"]:
    """Share of the ATP of all refinement steps that some of them cost."""
    table = student.table(inputs)
    full = budget.full(table, {name: module.description.max_steps for name, module in student.modules.items()})
    return sum(steps[name] * jnp.float32(table[name].step_atp / full) for name in steps)


def overlap(told: Float[Array, "b f k"], teacher: Float[Array, "b f k"]) -> Float[Array, " b"]:
    """Share of the teacher's TOP of all image tokens that is in the student's."""
    flat = [each.reshape(each.shape[0], -1) for each in (told, teacher)]
    count = max(1, round(TOP * flat[0].shape[1]))
    mine, theirs = (jax.lax.top_k(each, count)[1] for each in flat)
    return (mine[:, :, None] == theirs[:, None, :]).any(axis=2).mean(axis=1)


def summarise(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """`robot_scores.summarise` and the means of what is added here; `action_r2_planned` is with the steps asked for."""
    rest = robot_scores.summarise([{name: part[name] for name in part if name not in OWN} for part in parts])
    valid = np.concatenate([part["valid"] for part in parts])
    own = {name: np.concatenate([part[name] for part in parts])[valid].astype(np.float64) for name in OWN}
    worse = own["planned_error"].mean() / max(own["full_error"].mean(), 1e-12)
    sure, aim = own["confidence"], own["teacher_confidence"]
    found = {
        "action_r2_planned": 1 - (1 - rest["action_r2"]) * worse,
        "steps_saved": own["saved"].mean(),
        "saliency_kl": own["saliency_kl"].mean(),
        "saliency_overlap": own["overlap"].mean(),
        "confidence_r2": 1 - np.square(sure - aim).sum() / max(np.square(aim - aim.mean()).sum(), 1e-12),
    }
    return rest | {name: float(value) for name, value in found.items()}
