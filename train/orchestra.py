"""What the H-module is trained on: where the teacher looked, how long thinking paid, how sure it was, and acting well
under sampled budgets with modalities disturbed."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from student_jax.sage import budget, h_module, orchestrator
from student_jax.student import Student
from train import disturb, losses, robot, vision

Terms = dict[str, losses.Term]
FEATURES = ("saliency", "confidence")
LEAST = 0.1
"""The tightest budget that is sampled, as a share of what all steps cost."""
OBEDIENT = 0.5
"""Chance that a sample takes the steps that the H-module wants; else it takes all that its budget pays for."""


def attention_terms(student: Student, batch: robot.Batch, key: Array) -> tuple[Terms, Terms]:
    """Saliency and halting of the H-module on undisturbed observations; every other module is frozen."""
    found = robot.unroll(student, batch, key, until="control")
    return judged(student, batch, found)


def terms(student: Student, batch: robot.Batch, key: Array) -> tuple[Terms, Terms]:
    """Everything: those, the task, the fused features and the teacher's confidence, in disturbed scenes and within
    sampled budgets."""
    scene = disturb.disturb(vision.inputs(batch), jax.random.fold_in(key, 7))
    found = robot.unroll(
        student, batch, key, until="control", scene=scene, depth=sampled(student, scene, jax.random.fold_in(key, 8))
    )
    seen = batch | {"clean": scene.clean & batch["valid"][:, None]}
    named, extras = judged(student, seen, found)
    parts = [part(student, seen, found) for part in (robot.seeing, robot.reading, robot.acting)]
    energy = [losses.mean(part.pop("energy")) for part, _ in parts]
    for part, more in parts:
        named, extras = named | part, extras | more
    named["energy"] = (sum(energy) / len(energy), jnp.float32(1))
    return named, extras


def judged(student: Student, batch: robot.Batch, found: robot.Unrolled) -> tuple[Terms, Terms]:
    """Saliency, halting, its price and confidence, from what the H-module said and what the modules then came to."""
    brief, frames = found.brief, vision.frames(batch)
    whole, valid = frames.all(axis=1), batch["valid"]
    told = student.h_module.told(brief, student.config.target)
    named = {
        "saliency": losses.masked(saliency_divergence(told, batch["saliency"]), whole),
        "confidence": losses.masked(jnp.square(sureness(student, found) - batch["confidence"]), valid),
    }
    settings, kls, price = student.config.h_module, [], jnp.zeros(valid.shape)
    for name, errors in usual_errors(student, batch, found).items():
        aim = jax.lax.stop_gradient(budget.target(errors, tau=settings.tau, price=settings.price))
        said = brief.log_worth[name]
        kls.append((aim * (jnp.log(jnp.maximum(aim, 1e-12)) - said)).sum(axis=1))
        depth = jnp.arange(said.shape[1], dtype=jnp.float32)
        price += (jnp.exp(said) * depth[None]).sum(axis=1) / (said.shape[1] - 1) / len(student.modules)
    named["halting"] = losses.masked(sum(kls) / len(kls), valid)
    named["ponder"] = losses.masked(price, valid)
    return named, {f"gate/{name}": losses.masked(brief.gates[:, i], valid) for i, name in enumerate(student.modules)}


def saliency_divergence(told: Float[Array, "b f k"], teacher: Float[Array, "b f k"]) -> Float[Array, " b"]:
    """KL(teacher || student) in nats over the image tokens of all frames of a sample."""
    b = told.shape[0]
    p = jnp.maximum(jax.lax.stop_gradient(teacher).reshape(b, -1), 1e-12)
    p = p / p.sum(axis=1, keepdims=True)
    said = jnp.log(jnp.maximum(told.reshape(b, -1), 1e-12))
    return (p * (jnp.log(p) - said)).sum(axis=1)


def sureness(student: Student, found: robot.Unrolled) -> Float[Array, " b"]:
    """The confidence that the student tells, from the mean over its draws."""
    hidden = found.states["control"][-1].x["hidden"]
    hidden = hidden.reshape(-1, found.draws.shape[0], *hidden.shape[1:]).mean(axis=1)
    return student.h_module.confidence(found.brief, jax.lax.stop_gradient(hidden))


def usual_errors(student: Student, batch: robot.Batch, found: robot.Unrolled) -> dict[str, Float[Array, "b k"]]:
    """Distance to the teacher after 0, 1, ... steps of every module, in units of its median validation error."""
    errors = {}
    for name, target in (("vision", "image_tokens"), ("language", "fused_tokens")):
        module = student.modules[name]
        truth = vision.standardised(batch[target], module.mean[...], module.basis[...])
        errors[name] = [losses.token_error(module.standardised(s), truth).mean(axis=1) for s in found.states[name]]
    teacher, count = robot.limited(student.control, robot.picked(batch["actions"], found.draws)), found.draws.shape[0]
    said = [losses.chunk_error(state.x["actions"], teacher) for state in found.states["control"]]
    errors["control"] = [error.reshape(-1, count).mean(axis=1) for error in said]
    return {name: jnp.stack(each, axis=1) / student.modules[name].error_scale[...] for name, each in errors.items()}


def sampled(student: Student, scene: disturb.Scene, key: Array) -> Any:
    """brief -> {module: int32 [b]}: the steps that a budget, drawn log-uniformly, leaves to each module."""
    rows = scene.trust.shape[0]
    drawn, obeys = jax.random.split(key)
    share = jnp.exp(jax.random.uniform(drawn, (rows,), minval=jnp.log(LEAST), maxval=0.1))
    follows = jax.random.bernoulli(obeys, OBEDIENT, (rows,))

    def depth(brief: h_module.Brief) -> dict[str, Int[Array, " b"]]:
        table = student.table(scene.inputs)
        most = {name: module.description.max_steps for name, module in student.modules.items()}
        full = budget.full(table, most)
        wanted = orchestrator.plans(student, brief, budget.thrift(share * full, full), batch=rows)
        planned = {name: jnp.where(follows, wanted[name], most[name]) for name in most}
        return orchestrator.bought(table, most, planned, scene.trust, share * full)

    return depth
