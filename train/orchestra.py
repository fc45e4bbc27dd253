"""What the H-module is trained on: where the teacher looked, how long thinking paid, how sure it was, and acting well
under sampled budgets with modalities disturbed."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from student_jax.sage import budget, h_module, orchestrator
from student_jax.student import Student
from train import disturb, losses, robot, vision

Terms = losses.Terms
FEATURES = ("saliency", "confidence")
OBEDIENT = 0.5
"""Chance that a sample takes the steps that the H-module chooses; else any."""


def attention_terms(student: Student, batch: robot.Batch, key: Array) -> tuple[Terms, Terms]:
    """Saliency, foresight and confidence of the H-module on undisturbed observations; the rest is frozen."""
    scene = disturb.calm(vision.inputs(batch), len(student.modules), trust=h_module.USUAL_TRUST)
    scene = dataclasses.replace(scene, share=disturb.shares(len(scene.share), jax.random.fold_in(key, 7)))
    depth = sampled(student, scene, jax.random.fold_in(key, 8))
    return judged(student, batch, robot.unroll(student, batch, key, until="control", scene=scene, depth=depth))


def terms(student: Student, batch: robot.Batch, key: Array) -> tuple[Terms, Terms]:
    """Everything: those, the task, the image tokens, the fused features, the energies and the teacher's confidence, in
    disturbed scenes and within sampled budgets."""
    seen, found = disturbed(student, batch, key)
    named, extras = judged(student, seen, found)
    parts = [part(student, seen, found) for part in (robot.seeing, robot.reading, robot.acting)]
    energy = [part.pop("energy") for part, _ in parts]
    for part, more in parts:
        named, extras = named | part, extras | more
    named["energy"] = energy
    return named, extras


def frozen_terms(student: Student, batch: robot.Batch, key: Array) -> tuple[Terms, Terms]:
    """Of those what the H-module can change while all else is frozen: neither image tokens nor energies."""
    seen, found = disturbed(student, batch, key)
    named, extras = judged(student, seen, found)
    for part, more in (robot.reading(student, seen, found), robot.acting(student, seen, found)):
        named |= {name: term for name, term in part.items() if name != "energy"}
        extras |= more
    return named, extras


def disturbed(student: Student, batch: robot.Batch, key: Array) -> tuple[robot.Batch, robot.Unrolled]:
    """The batch with what is `clean` in a disturbed scene, and what the student made of the scene within a budget."""
    scene = disturb.disturb(vision.inputs(batch), jax.random.fold_in(key, 7))
    depth = sampled(student, scene, jax.random.fold_in(key, 8))
    found = robot.unroll(student, batch, key, until="control", scene=scene, depth=depth)
    return batch | {"clean": scene.clean & batch["valid"][:, None]}, found


def judged(student: Student, batch: robot.Batch, found: robot.Unrolled) -> tuple[Terms, Terms]:
    """Saliency, foresight and confidence, from what the H-module said and what the modules then came to."""
    brief, valid = found.brief, batch["valid"]
    told, errors = student.h_module.told(brief, student.config.target), action_errors(student, batch, found)
    foreseen = jnp.take_along_axis(by_depth(student, brief), passed(student, found)[:, None, None], axis=1)[:, 0]
    unsure = [jnp.square(sure - batch["confidence"]) for sure in sureness(student, found)]
    named = {
        "saliency": losses.masked(saliency_divergence(told, batch["saliency"]), vision.frames(batch).all(axis=1)),
        "foresight": losses.log_error(foreseen, errors, jnp.broadcast_to(valid[:, None], errors.shape)),
        "confidence": losses.masked(sum(unsure) / len(unsure), valid),
    }
    return named, {f"gate/{name}": losses.masked(brief.gates[:, i], valid) for i, name in enumerate(student.modules)}


def by_depth(student: Student, brief: h_module.Brief) -> Float[Array, "b e k"]:
    """Predicted log errors: e choices for all modules but the last, k for the control."""
    return brief.log_error.reshape(brief.log_error.shape[0], -1, student.control.description.max_steps + 1)


def passed(student: Student, found: robot.Unrolled) -> Int[Array, " b"]:
    """Which of those e choices a sample's states were passed on with."""
    index = jnp.zeros_like(found.depth["vision"])
    for name in list(student.modules)[:-1]:
        index = index * (student.modules[name].description.max_steps + 1) + found.depth[name]
    return index


def saliency_divergence(told: Float[Array, "b f k"], teacher: Float[Array, "b f k"]) -> Float[Array, " b"]:
    """KL(teacher || student) in nats over the image tokens of all frames of a sample."""
    b = told.shape[0]
    p = jnp.maximum(jax.lax.stop_gradient(teacher).reshape(b, -1), 1e-12)
    p = p / p.sum(axis=1, keepdims=True)
    said = jnp.log(jnp.maximum(told.reshape(b, -1), 1e-12))
    return (p * (jnp.log(p) - said)).sum(axis=1)


def sureness(student: Student, found: robot.Unrolled) -> list[Float[Array, " b"]]:
    """The confidence that the student tells after 0, 1, ... steps of its control, from x_0 = 0 as where it acts."""
    starts = found.draws.shape[0] + 1

    def told(hidden: Array) -> Array:
        return student.h_module.confidence(found.brief, jax.lax.stop_gradient(hidden[starts - 1 :: starts]))

    return [told(state.x["hidden"]) for state in found.states["control"]]


def action_errors(student: Student, batch: robot.Batch, found: robot.Unrolled) -> Float[Array, "b k"]:
    """Mean squared distance to the teacher's actions after 0, 1, ... steps of the control, over the draws."""
    teacher, count = robot.limited(student.control, batch["actions"][:, found.draws]), found.draws.shape[0]
    shape = (-1, count + 1, *teacher.shape[2:])
    said = [state.x["actions"].reshape(shape)[:, :-1] for state in found.states["control"]]
    return jnp.stack([jnp.square(y - teacher).mean(axis=(1, 2, 3)) for y in said], axis=1)


def sampled(student: Student, scene: disturb.Scene, key: Array) -> robot.Depth:
    """Steps for each module: any choice at random, or the one that the H-module takes within the scene's budget."""
    rows = scene.trust.shape[0]
    obeys, any_one = jax.random.split(key)
    follows = jax.random.bernoulli(obeys, OBEDIENT, (rows,))

    def depth(brief: h_module.Brief) -> dict[str, Int[Array, " b"]]:
        wild = jax.random.randint(any_one, (rows,), 0, brief.log_error.shape[1])
        return steps(student, scene, jnp.where(follows, chosen(student, scene, brief), wild))

    return depth


def chosen(student: Student, scene: disturb.Scene, brief: h_module.Brief) -> Int[Array, " b"]:
    """The H-module's choice within the scene's budget, trust left out."""
    choices = orchestrator.choices(student, scene.inputs)
    full, share = float(choices.costs.sum(axis=1).max()), scene.share
    atp, most = share * full, jnp.full((len(share), choices.steps.shape[1]), 2 * full)
    price = student.config.h_module.price
    nothing = jnp.zeros((len(share), 0), jnp.int32)
    return budget.choose(brief.log_error, choices, left=atp, caps=most, taken=nothing, price=price)


def steps(student: Student, scene: disturb.Scene, choice: Int[Array, " b"]) -> dict[str, Int[Array, " b"]]:
    """Each module's steps of a choice."""
    table = jnp.asarray(orchestrator.choices(student, scene.inputs).steps)[choice]
    return {name: table[:, index] for index, name in enumerate(student.modules)}
