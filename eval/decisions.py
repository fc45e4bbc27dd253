"""What a decision was and why, as plain data: from it the page is drawn and the decision can be made again."""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from student_jax import irp
from student_jax.sage import trust
from train.cycle import Decision, SageActor

SIDES = (("upper", "middle", "lower"), ("left", "middle", "right"))


def record(number: int, given: dict[str, np.ndarray], said: Decision, policy: SageActor, *, instruction: str) -> dict:
    """Decision `number` of an episode, from one row of what was given and said."""
    names, prices = list(policy.student.modules), costs(policy, given)
    believed = {name: float(value) for name, value in zip(names, said.trust[0], strict=True)}
    posture = trust.Posture.of(believed)
    found = {
        "decision": number,
        "instruction": instruction,
        "inputs": digest(given),
        "trust": believed,
        "posture": dataclasses.asdict(posture),
        "views": dict(zip(policy.body.transform.video_keys, map(bool, said.views[0]), strict=True)),
        "modules": {name: account(said.accounts[name], prices[name]) for name in names},
        "contribution": contributions(policy, given, said),
        "saliency": np.round(said.saliency[0], 6).tolist(),
        "held": not said.views[0].any(),
        "looked_at": looked_at(said.saliency[0], policy.body.transform.video_keys),
        "confidence": float(said.confidence[0]),
        "atp": float(sum(float(one.spent[0]) for one in said.accounts.values())),
        "actions": said.actions[0].tolist(),
    }
    return found | {"sentence": sentence(found, policy)}


def digest(given: dict[str, np.ndarray]) -> str:
    """sha256 of everything that the student was given."""
    found = hashlib.sha256()
    for name in sorted(given):
        found.update(name.encode() + np.ascontiguousarray(given[name]).tobytes())
    return found.hexdigest()


def costs(policy: SageActor, given: dict[str, np.ndarray]) -> dict[str, float]:
    """ATP of a step of each module."""
    inputs = irp.Inputs(given["video"], given["state"], given["tokens"], given["token_mask"], None)
    return {name: found.step_atp for name, found in policy.student.table(inputs).items()}


def account(one: Any, step_atp: float) -> dict[str, Any]:
    """One module's account of one row. halted: why it stopped; "planned" where no more was asked for and another step
    could have been paid."""
    steps, granted, spent = int(one.steps[0]), float(one.granted[0]), float(one.spent[0])
    reason = irp.Reason(int(one.reason[0]))
    unforced = reason == irp.Reason.BUDGET and granted >= spent + step_atp
    return {
        "planned": int(one.planned[0]),
        "steps": steps,
        "halted": "planned" if unforced else reason.name.lower(),
        "granted_atp": granted,
        "spent_atp": spent,
        "energy": [float(value) for value in one.energy[0][: steps + 1]],
        "gate": float(one.gate[0]),
    }


def contributions(policy: SageActor, given: dict[str, np.ndarray], said: Decision) -> dict[str, float]:
    """How much the actions change without each module: root mean square, normalised units."""
    found = {}
    for name in policy.student.modules:
        without = policy.answer(given, dataclasses.replace(policy.will, silence=(name,)))
        found[name] = float(np.sqrt(np.square(without.actions[0] - said.actions[0]).mean()))
    return found


def looked_at(saliency: np.ndarray, views: tuple[str, ...]) -> dict[str, Any]:
    """Where the saliency [f, p] is largest, in words, and how much of it each view has."""
    view, place = np.unravel_index(np.argmax(saliency), saliency.shape)
    side = round(saliency.shape[1] ** 0.5)
    row, column = (min(3 * int(index) // side, 2) for index in divmod(int(place), side))
    where = " ".join(dict.fromkeys((SIDES[0][row], SIDES[1][column])))
    return {"view": views[view % len(views)], "place": where, "share": saliency.sum(axis=1).round(4).tolist()}


def sentence(found: dict, policy: SageActor) -> str:
    """The decision in one plain sentence."""
    most = max(found["contribution"], key=found["contribution"].get)
    steps = sum(one["steps"] for one in found["modules"].values())
    possible = sum(module.description.max_steps for module in policy.student.modules.values())
    lost = [name for name, given in found["views"].items() if not given]
    doubt = min(found["trust"], key=found["trust"].get)
    parts = [
        f"Told to {found['instruction']}, it looked at the {found['looked_at']['place']} of the "
        f"{found['looked_at']['view']} view and leaned on {most} most",
        f"thinking {steps} of {possible} steps for {found['atp']:.1f} ATP",
        f"{found['confidence']:.0%} sure",
    ]
    if found["trust"][doubt] < 0.75:
        parts.append(f"trusting {doubt} little ({found['trust'][doubt]:.2f})")
    if found["held"]:
        parts.append("and held still, because no view showed what was to be expected")
    elif lost:
        parts.append(f"without the {' and '.join(lost)} view, which did not show what was to be expected")
    return ", ".join(parts) + "."
