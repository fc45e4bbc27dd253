"""A robot student against its teacher: what each module is trained on, and how a validation scores actions.

Batches are dicts with video uint8 [b, 1, v, h, w, 3], state [b, 1, d], tokens and token_mask [b, l]; shown and valid
bool [b]; image_tokens, fused_tokens bf16 [b, v, t, c], vision_attention [b, v, t], text_features [b, c]; noise, actions
[b, n, h, a] (n draws), demonstration [b, h, a]; pixels [b, v, o, 2] where the dataset knows where its objects are.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bridge import standardise
from student_jax import irp, remat
from student_jax.sage import budget, h_module, orchestrator
from student_jax.student import Student
from train import data, disturb, losses, robot_data, vision
from train.state import Path

Batch = dict[str, Array]
Depth = Callable[[Any], dict[str, Array]]
"""From what the H-module said to the steps, int32 [b], after which each module's state goes on to the next."""
DRAWS = 4
"""Noise draws per observation and step: vision and language, the larger part of the work, run once for all."""
MOST_TOKENS = 1 << 16
SIGHT = ("image_tokens", "vision_attention")
WORDS = ("fused_tokens", "text_features")
ACTS = ("noise", "actions", "demonstration")


@dataclasses.dataclass(frozen=True)
class Unrolled:
    """The states after 0, 1, ... steps of every module that ran, and what went with them."""

    states: dict[str, list[irp.State]]
    draws: Any = None  # int32 [n], which of the teacher's draws the control was given
    brief: Any = None  # what the H-module said, where there is one and the control ran
    depth: Any = None  # {module: int32 [b]}, after how many steps its state went on to the next


def unroll(
    student: Student,
    batch: Batch,
    key: Array,
    *,
    until: str,
    frozen: bool = False,
    scene: disturb.Scene | None = None,
    depth: Depth | None = None,
) -> Unrolled:
    """Run the modules in order up to `until`, each with all its steps. frozen: no gradient reaches those before it.

    scene: what the student is given instead of the batch's own undisturbed inputs. Without `depth` every module's last
    state goes on.
    """
    scene = scene or disturb.calm(vision.inputs(batch), len(student.modules), trust=h_module.USUAL_TRUST)
    given, found, draws, first, brief, passed = scene.inputs, {}, None, None, None, {}
    if student.config.h_module and until == "control":
        first = irp.start(student.vision, given, jax.random.fold_in(key, 0))
        given, brief = orchestrator.think(
            student, given, first, trust=scene.trust, thrift=budget.thrift(scene.share, 1.0)
        )
        passed = depth(brief) if depth else {}
    for index, (name, module) in enumerate(student.modules.items()):
        if name == "control":
            draws = chosen(batch, jax.random.fold_in(key, 99))
            starts = started(batch["noise"][:, draws])
            given = dataclasses.replace(given, noise=starts.reshape(-1, *starts.shape[2:]))
        if frozen and name == until:
            given = jax.lax.stop_gradient(given)
        here = jax.random.fold_in(key, index)
        states = irp.unroll(module, given, here, module.description.max_steps, first=first if index == 0 else None)
        found[name] = states
        if name == until:
            break
        given = orchestrator.tell(student, given, name, after(states, passed.get(name)), brief)
    return Unrolled(found, draws, brief, passed)


def after(states: list[Any], steps: Array | None) -> Any:
    """Of each sample what there was after so many steps, int32 [b]; None: the last. states: pytrees, batch first."""
    if steps is None:
        return states[-1]

    def pick(*leaves: Array) -> Array:
        stacked = jnp.stack(leaves)
        index = steps.reshape(1, -1, *(1,) * (stacked.ndim - 2))
        return jnp.take_along_axis(stacked, index, axis=0)[0]

    return jax.tree.map(pick, *states)


def chosen(batch: Batch, key: Array) -> Array:
    """Which of the teacher's draws this step uses, int32 [n]: as many as it has, at most DRAWS."""
    available = batch["noise"].shape[1]
    return jax.random.permutation(key, available)[: min(DRAWS, available)]


def started(noise: Float[Array, "b n h a"]) -> Float[Array, "b m h a"]:
    """The draws and, last, x_0 = 0, which is never drawn: from there the student says what it would do itself."""
    return jnp.concatenate([noise, jnp.zeros_like(noise[:, :1])], axis=1)


def taught(module: Any, batch: Batch) -> Float[Array, "b h a"]:
    """What is learned at x_0 = 0: the demonstrated chunk, or where none was shown the mean over the teacher's draws."""
    mean = limited(module, batch["actions"]).mean(axis=1)
    return jnp.where(batch["shown"][:, None, None], limited(module, batch["demonstration"]), mean)


def unseen(of: Callable[..., Any]) -> Callable[..., Any]:
    """Losses or scores (student, batch, key) as if nothing had been demonstrated."""
    return lambda student, batch, key: of(student, batch | {"shown": jnp.zeros_like(batch["shown"])}, key)


def vision_terms(student: Student, batch: Batch, key: Array) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """Losses of the Vision IRP, and where the objects are if it tells."""
    return seeing(student, batch, unroll(student, batch, key, until="vision"))


def language_terms(student: Student, batch: Batch, key: Array) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """Losses of the Language IRP on a frozen vision."""
    return reading(student, batch, unroll(student, batch, key, until="language", frozen=True))


def control_terms(student: Student, batch: Batch, key: Array) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """Losses of the Control IRP on a frozen vision and language."""
    return acting(student, batch, unroll(student, batch, key, until="control", frozen=True))


def terms(student: Student, batch: Batch, key: Array) -> tuple[losses.Terms, losses.Terms]:
    """Losses of all modules together."""
    found = unroll(student, batch, key, until="control")
    parts = [part(student, batch, found) for part in (seeing, reading, acting)]
    energy = [named.pop("energy") for named, _ in parts]
    named = {name: term for part, _ in parts for name, term in part.items()}
    named["energy"] = energy
    return named, {name: term for _, extras in parts for name, term in extras.items()}


def statistics(observations: robot_data.Observations) -> dict[Path, Any]:
    """Bases, scales and limits of every module, from the training split."""
    found = {}
    for module, name in (("vision", "image_tokens"), ("language", "fused_tokens")):
        moments = None
        for tokens in data.token_sample(observations, name, most=MOST_TOKENS):
            moments = moments or standardise.Moments(tokens.shape[-1])
            moments.add(tokens)
        fit = standardise.phi_s(moments.mean(), moments.covariance())
        found |= {(module, "mean"): fit.mean, (module, "basis"): fit.basis}
    everything = np.arange(len(observations))
    text = observations.fetch("text_features", everything).astype(np.float64)
    found[("language", "text_mean")] = text.mean(axis=0).astype(np.float32)
    found[("language", "text_scale")] = (text.std(axis=0) + 1e-3 * text.std() + 1e-8).astype(np.float32)
    shown = observations.fetch("demonstration", everything)
    low, high = shown.min(axis=(0, 1)), shown.max(axis=(0, 1))
    return found | {("control", "low"): low.astype(np.float32), ("control", "high"): high.astype(np.float32)}


def calibrate(summary: dict[str, float]) -> dict[Path, Any]:
    """The median validation error of the actions, which turns a predicted error into an energy."""
    return scales(control=summary["median_error"])


def calibrate_all(summary: dict[str, float]) -> dict[Path, Any]:
    """The same for every module."""
    tokens = {name: summary[f"{name}_error"] for name in ("vision", "language")}
    return scales(control=summary["median_error"], **tokens)


def scales(**errors: float) -> dict[Path, Any]:
    """A module's `error_scale` from its median validation error."""
    return {(name, "error_scale"): np.float32(max(error, 1e-8)) for name, error in errors.items()}


def seeing(student: Student, batch: Batch, found: Unrolled) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """Image tokens, attention and objects after every step of the Vision IRP."""
    states = found.states["vision"]
    named, extras = vision.state_losses(student.vision, states, batch)
    if student.config.vision.objects:
        told = [losses.places(student.vision.objects(state), batch["pixels"], batch["valid"]) for state in states]
        named["objects"] = losses.weighted(told, losses.rising(len(states) - 1))
    return named, extras


def reading(student: Student, batch: Batch, found: Unrolled) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """Fused tokens and text features after every step of the Language IRP."""
    module, states = student.language, found.states["language"]
    target = vision.standardised(batch["fused_tokens"], module.mean[...], module.basis[...])
    text = (batch["text_features"] - module.text_mean[...][None]) / module.text_scale[...][None]
    mask = vision.frames(batch)
    weights = losses.rising(len(states) - 1)

    @remat.part
    def judged(state: irp.State) -> dict[str, losses.Term]:
        fused = module.standardised(state)
        foreseen = module.log_error(jax.lax.stop_gradient(state))
        return {
            "fused": losses.token_mse(fused, target, mask),
            "fused_cosine": losses.token_cosine(fused, target, mask),
            "text": losses.row_mse(module.standardised_text(state), text, batch["valid"]),
            "energy": losses.log_error(foreseen, losses.token_error(fused, target), mask),
        }

    each = [judged(state) for state in states]
    parts = {name: [part[name] for part in each] for name in each[0]}
    extras = {f"fused_error/step_{k}": term for k, term in enumerate(parts["fused"])}
    return {name: losses.weighted(each, weights) for name, each in parts.items()}, extras


def acting(student: Student, batch: Batch, found: Unrolled) -> tuple[dict[str, losses.Term], dict[str, losses.Term]]:
    """Actions after every step of the Control IRP: at drawn x_0 the teacher's; at x_0 = 0, from where the student acts,
    what it is `taught`. A sample weighs the same there whether it was shown or is imitated."""
    module, states, valid = student.control, found.states["control"], batch["valid"]
    target = limited(module, batch["actions"][:, found.draws])
    target = jnp.concatenate([target, taught(module, batch)[:, None]], axis=1)
    rows = jnp.broadcast_to(valid[:, None], target.shape[:2])
    weights = losses.rising(len(states) - 1)
    error = [losses.chunk_error(state.x["actions"].reshape(target.shape), target) for state in states]
    judged = [module.log_error(jax.lax.stop_gradient(state)).reshape(rows.shape) for state in states]
    parts = {
        "actions": [losses.masked(e[:, :-1], rows[:, :-1]) for e in error],
        "demonstration": [losses.share(e[:, -1], valid & batch["shown"], of=valid) for e in error],
        "imitation": [losses.share(e[:, -1], valid & ~batch["shown"], of=valid) for e in error],
        "energy": [losses.log_error(j, e, rows) for j, e in zip(judged, error, strict=True)],
    }
    extras = {f"action_error/step_{k}": term for k, term in enumerate(parts["actions"])}
    return {name: losses.weighted(each, weights) for name, each in parts.items()}, extras


def calibrate_language(summary: dict[str, float]) -> dict[Path, Any]:
    """The median validation error of the fused tokens."""
    return scales(language=summary["median_error"])


def limited(module: Any, actions: Float[Array, "*n h a"]) -> Float[Array, "*n h a"]:
    """Actions within the limits that the robot has: what would be executed."""
    shape = (1,) * (actions.ndim - 1) + (-1,)
    return jnp.clip(actions, module.low[...].reshape(shape), module.high[...].reshape(shape))
