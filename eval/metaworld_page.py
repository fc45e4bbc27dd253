"""What the metaworld suite's page shows beside its rows: the teacher's worth first, success per task, videos."""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np

from eval import pairing, report
from eval.tally import Results

STAND_IN = (
    "The teacher is a stand-in of GR00T's shape, trained by this project on scripted demonstrations. Its vision was "
    "first taught where things are, by labels of the simulator, which stands for what SigLIP brings to the real one."
)


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video beside the page with the sentence that says what is seen."""

    file: str
    caption: str


def before(results: Results, rows: Sequence[report.Row], provenance: str) -> list[str]:
    """The sections above the rows."""
    found = {row.id: row for row in rows}
    parts = [f'<p class="verdict bad">{html.escape(results.warning)}</p>'] if results.warning else []
    parts += [value_table(results, found), success_table(results, found)]
    return [*parts, f'<p class="facts">{html.escape(STAND_IN)}</p>'] if provenance == "stand-in" else parts


def value_table(results: Results, rows: dict[str, report.Row]) -> str:
    """Was the teacher worth it: the student less each control."""
    lines = []
    for name in dict.fromkeys(("demonstrations", *results.controls)):
        part = f"metaworld.student.value_over_{report.slug(name)}"
        gain, p = rows[f"{part}.{results.split}"], rows[f"{part}_p.{results.split}"]
        span = "" if gain.ci_low is None else f"{gain.ci_low:+.1f} .. {gain.ci_high:+.1f}"
        value = "" if gain.value is None else f"{gain.value:+.1f} points"
        cells = (f"distilled less {name}", value, span, report.number(p.value), _verdict(gain, p))
        note = gain.note if gain.value is None else "; ".join(filter(None, [results.uneven.get(name), p.note]))
        lines.append((*cells, note))
    head = ("", "success", "95 % interval", "p", "", "note")
    return _section("Value of the teacher", [head, *lines], results.headline_note)


def _verdict(gain: report.Row, p: report.Row) -> str:
    if gain.needs:
        return gain.verdict
    judged = [row.passed for row in (gain, p) if row.passed is not None]
    return "" if not judged else "PASS" if all(judged) else "FAIL"


def success_table(results: Results, rows: dict[str, report.Row]) -> str:
    """Success of every policy per task; headline tasks carry a star."""
    keys = [("teacher", "normal"), ("student", "normal")]
    keys += [(name, "normal") for name in results.controls] + [("teacher", "blind")]
    known = [*keys, *(key for key in results.found if key[1] == "normal" and key not in keys)]
    shares = [[_solved(results.get(*key), i) for key in known] for i in range(len(results.tasks))]
    lines = [
        (task + " *" * (index in results.headline), *map(_share, row))
        for index, (task, row) in enumerate(zip(results.tasks, shares, strict=True))
    ]
    means = [_mean([row[i] for row in shares], range(len(shares))) for i in range(len(known))]
    heads = [_mean([row[i] for row in shares], results.headline) for i in range(len(known))]
    lines += [("mean of all", *means), ("mean of *", *heads)]
    names = [f"{policy} (blind)" if condition == "blind" else policy for policy, condition in known]
    return _section("Success per task", [("task", *names), *lines], f"* {results.headline_note}")


def _solved(found: pairing.Success | None, task: int) -> float | None:
    return None if found is None else float(found[:, task].mean())


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _mean(values: Sequence[float | None], chosen: Sequence[int]) -> str:
    picked = [values[i] for i in chosen]
    return _share(None if not picked or None in picked else float(np.mean(picked)))


def after(clips: Sequence[Clip]) -> list[str]:
    """The videos, below everything else."""
    if not clips:
        return []
    shown = "\n".join(
        f'<figure><video controls loop muted playsinline preload="metadata" src="{html.escape(clip.file)}"></video>'
        f"<figcaption>{html.escape(clip.caption)}</figcaption></figure>"
        for clip in clips
    )
    return [f"<h2>Teacher and student on the same goals</h2>\n{shown}"]


def _section(title: str, lines: Sequence[tuple[str, ...]], note: str) -> str:
    head, *body = [[html.escape(cell) for cell in line] for line in lines]
    texts = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    texts += ["<tr>" + "".join(map(_cell, line)) + "</tr>" for line in body]
    table = f'<div class="scroll"><table>{"".join(texts)}</table></div>'
    return f'<h2>{html.escape(title)}</h2>\n{table}\n<p class="facts">{html.escape(note)}</p>'


def _cell(text: str) -> str:
    return f'<td class="{text}">{text}</td>' if text in ("PASS", "FAIL") else f"<td>{text}</td>"
