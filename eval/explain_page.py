"""The page of an explained episode: a section per decision with its picture, its sentence and its accounts."""

import base64
import html
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from eval.page import STYLE
from eval.pictures import png

COLUMNS = ("module", "mattered", "trust", "gate", "steps", "planned", "halted", "ATP granted", "ATP spent", "energy")


def render(records: Sequence[dict], frames: Sequence[np.ndarray], *, task: str, condition: str, success: bool) -> str:
    """frames: uint8 [v, h, w, 3] of every decision."""
    title = html.escape(f"{task} ({condition}): {'solved' if success else 'failed'} after {len(records)} decisions")
    sections = [section(one, picture) for one, picture in zip(records, frames, strict=True)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        '<p class="facts">Bright: where the H-module looks. “mattered”: how much the actions change, normalised units, '
        "when what the module says reaches nobody (for the control: when it stays at its first answer).</p>\n"
        + course(records)
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def section(one: dict, frames: np.ndarray) -> str:
    """One decision."""
    lines = [cells(one, name) for name in one["modules"]]
    head = "".join(f"<th>{text}</th>" for text in COLUMNS)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in line) + "</tr>" for line in lines)
    starved = one["posture"]["starved"]
    posture = f" Starved: {', '.join(starved)}." if starved else ""
    return (
        f"<h2>Decision {one['decision']}</h2>\n<p>{html.escape(one['sentence'] + posture)}</p>\n"
        f"{image(overlay(one, frames))}\n"
        f'<div class="scroll"><table><tr>{head}</tr>\n{body}\n</table></div>'
    )


def cells(one: dict, name: str) -> tuple[str, ...]:
    """A module's line."""
    module = one["modules"][name]
    energy = " → ".join(f"{value:.2f}" for value in module["energy"])
    numbers = (one["contribution"][name], one["trust"][name], module["gate"])
    texts = (str(module["steps"]), str(module["planned"]), module["halted"])
    return (
        name,
        *(f"{n:.2f}" for n in numbers),
        *texts,
        f"{module['granted_atp']:.1f}",
        f"{module['spent_atp']:.1f}",
        energy,
    )


def overlay(one: dict, frames: np.ndarray) -> bytes:
    """The views with the saliency laid over them."""
    saliency = np.array(one["saliency"])
    side = round(saliency.shape[1] ** 0.5)
    figure = Figure(figsize=(3.2 * len(frames), 3.3), layout="constrained")
    axes = figure.subplots(1, len(frames), squeeze=False)[0]
    for axis, frame, part, (name, given) in zip(axes, frames, saliency, one["views"].items(), strict=True):
        height, width = frame.shape[:2]
        axis.imshow(frame)
        alpha = np.clip(part.reshape(side, side) / max(saliency.max(), 1e-9), 0, 1)
        axis.imshow(alpha, cmap="inferno", alpha=0.75 * alpha, extent=(0, width, height, 0), interpolation="bilinear")
        axis.set_title(name if given else f"{name} (held to be lost)", fontsize=9)
        axis.set_axis_off()
    return png(figure)


def course(records: Sequence[dict]) -> str:
    """Trust, confidence and ATP over the episode."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in records[0]["trust"]:
        left.plot([one["trust"][name] for one in records], label=name)
    left.plot([one["confidence"] for one in records], label="confidence", linestyle="--", color="black")
    left.set(ylim=(0, 1.02), xlabel="decision", title="trust and confidence")
    left.legend(fontsize=7)
    spent = np.array([[module["spent_atp"] for module in one["modules"].values()] for one in records])
    right.stackplot(range(len(records)), spent.T, labels=list(records[0]["modules"]))
    right.set(xlabel="decision", title="ATP spent")
    right.legend(fontsize=7)
    return image(png(figure))


def image(data: bytes) -> str:
    """A picture inside the page."""
    return f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}"></figure>'
