"""`python -m eval.size_curve REPORT...`: quality against size, from the reports of students of several presets."""

import argparse
import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from eval import origin, page, pictures, report

METRICS = {
    "action_r2": "action R²",
    "success": "success, share of episodes",
    "exact": "grids solved exactly",
    "pass1": "tasks solved at the first try",
    "pass2": "tasks solved within two tries",
}
SPLITS = ("test", "validation")


class CurveError(ValueError):
    """Reports that make no curve; the message says what is missing."""


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when the curve is written, 2 on bad input."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m eval.size_curve", description=__doc__.splitlines()[0])
    parser.add_argument(
        "reports", nargs="+", type=pathlib.Path, help="folders (or report.json) of eval.benchmark, eval.duel"
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/curve"), help="folder of the curve")
    options = parser.parse_args(argv)
    try:
        found = [report.read(_file(path)) for path in options.reports]
        rows = curve(found, shlex.join(["python", "-m", "eval.size_curve", *argv]))
    except (CurveError, report.ReportError, FileNotFoundError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = report.Report(tuple(rows), found[0].versions)
    report.write(options.out / "report.json", result)
    caption = "Each point is a preset, trained alike, with its 95 % interval; the axis of values is logarithmic."
    page.write(options.out, result, [page.Picture("Quality against size", caption, picture(rows))])
    console = Console()
    console.print(report.table(result, width=console.width))
    print(json.dumps({"report": str(options.out / "report.html"), "presets": len(_presets(rows))}))
    return 0


def curve(reports: Sequence[report.Report], command: str) -> list[report.Row]:
    """Rows `size.curve.METRIC.PRESET` in the order of size, each with what its own report said, and the parameters."""
    rows = {}
    for row in (row for found in reports for row in found.rows):
        if (metric := _metric(row)) and row.context.active_parameters:
            made = _moved(row, f"size.curve.{metric}.{report.slug(row.context.preset)}", command)
            if made.id in rows:
                raise CurveError(
                    f"{made.id} is there twice, at last as {row.id}: give one student per preset (a duel of several "
                    "types or budgets of one is no curve), and one report of all its seeds (--run A --run B)"
                )
            rows[made.id] = made
    presets = _presets(list(rows.values()))
    if len(presets) < 2:
        shown = ", ".join(presets) or "none"
        raise CurveError(f"a curve needs reports of two presets or more with {', '.join(METRICS)}; found {shown}")
    sizes = [
        report.Row(f"size.curve.parameters.{report.slug(name)}", row.context.active_parameters, "values", row.context,
                   better="lower", note="of the student as it is shipped")
        for name, row in presets.items()
    ]  # fmt: skip
    order = {report.slug(name): index for index, name in enumerate(presets)}
    names = ("parameters", *METRICS)
    return sorted([*sizes, *rows.values()], key=lambda row: (names.index(_part(row, 2)), order[_part(row, 3)]))


def picture(rows: Sequence[report.Row]) -> bytes:
    """A panel for every metric that was found."""
    metrics = [name for name in METRICS if any(_part(row, 2) == name for row in rows)]
    figure = Figure(figsize=(4.6 * len(metrics), 3.6), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        points = [row for row in rows if _part(row, 2) == name]
        sizes, values = [row.context.active_parameters for row in points], [row.value for row in points]
        spans = np.array([(_low(row), _high(row)) for row in points]).T
        axis.errorbar(sizes, values, yerr=np.maximum(spans, 0.0), marker="o", capsize=3)
        for size, value, row in zip(sizes, values, points, strict=True):
            axis.annotate(row.context.preset, (size, value), textcoords="offset points", xytext=(6, -11), fontsize=8)
        axis.set(xscale="log", xlabel="values of the student", ylabel=METRICS[name])
    return pictures.png(figure)


def _metric(row: report.Row) -> str:
    """The metric of a student's row over everything, "" for any other row. In a duel everybody is a student."""
    parts = row.id.split(".")
    whole = len(parts) == 3 or (len(parts) == 4 and parts[3] in SPLITS)
    students = parts[0] == "duel" or parts[1] == "student"
    return parts[2] if whole and students and parts[2] in METRICS and row.value is not None else ""


def _moved(row: report.Row, name: str, command: str) -> report.Row:
    """The row in the curve: without a bar, which was its own report's to judge."""
    note = "; ".join(filter(None, [row.note, f"{row.id} of `{row.context.command}`"]))
    context = dataclasses.replace(row.context, command=command, commit=origin.commit())
    return dataclasses.replace(row, id=name, bar=None, stretch=None, needs="", note=note, context=context)


def _presets(rows: Sequence[report.Row]) -> dict[str, report.Row]:
    """A row of each preset, the smallest student first."""
    ordered = sorted(rows, key=lambda row: row.context.active_parameters)
    return {row.context.preset: row for row in ordered}


def _part(row: report.Row, index: int) -> str:
    return row.id.split(".")[index]


def _low(row: report.Row) -> float:
    return 0.0 if row.ci_low is None else row.value - row.ci_low


def _high(row: report.Row) -> float:
    return 0.0 if row.ci_high is None else row.ci_high - row.value


def _file(path: pathlib.Path) -> pathlib.Path:
    return path / "report.json" if path.is_dir() else path


if __name__ == "__main__":
    sys.exit(main())
