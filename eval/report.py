"""The report's rows: what each carries, when it passes, `report.json` (the source) and its text views."""

import dataclasses
import json
import math
import pathlib
import re

from rich import box
from rich.table import Table
from rich.text import Text

SCHEMA_VERSION = 1
TEACHERS = ("real", "stand-in", "random", "none")
ENVIRONMENTS = ("real", "sim", "none")
UNJUDGED = "not judged"
IDENTIFIER = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+){2,4}")


class ReportError(ValueError):
    """A row or a report file breaks the schema."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What every row of one run of the benchmark shares."""

    teacher: str
    environment: str
    preset: str
    active_parameters: int | None
    device: str
    commit: str
    command: str

    def __post_init__(self):
        _one_of("teacher", self.teacher, TEACHERS)
        _one_of("environment", self.environment, ENVIRONMENTS)


@dataclasses.dataclass(frozen=True)
class Row:
    """One number. `value` None is an empty cell; then `note` says why."""

    id: str  # suite.subject.metric[.task][.split]
    value: float | None
    unit: str
    context: Context
    n: int | None = None
    seeds: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    seed_low: float | None = None
    seed_high: float | None = None
    bar: float | None = None
    stretch: float | None = None
    better: str = "higher"
    note: str = ""
    needs: str = ""  # what the bar is defined on and this run is not: then nothing is judged

    def __post_init__(self):
        if not IDENTIFIER.fullmatch(self.id):
            raise ReportError(
                f"row id: expected suite.subject.metric[.task][.split] in a-z, 0-9 and _, got {self.id!r}"
            )
        _one_of(f"{self.id}: better", self.better, ("higher", "lower"))
        for name in ("value", "ci_low", "ci_high", "seed_low", "seed_high", "bar", "stretch"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ReportError(f"{self.id}: {name} is {number}; an unknown number is None with a note, never NaN")
        if self.value is None and not self.note:
            raise ReportError(f"{self.id}: an empty value needs a note that says why")
        if self.needs and self.bar is None:
            raise ReportError(f"{self.id}: without a bar there is nothing to judge, so nothing that judging needs")

    @property
    def passed(self) -> bool | None:
        """Whether the value reaches the bar; None without a bar, or where the run is not what the bar is defined on. A
        bar without a value is missed."""
        if self.bar is None or self.needs:
            return None
        return self.value is not None and self._reaches(self.bar)

    @property
    def verdict(self) -> str:
        """PASS, FAIL, UNJUDGED or nothing; a star where the stretch value is reached too."""
        if self.passed is None:
            return UNJUDGED if self.needs else ""
        star = "*" if self.passed and self.stretch is not None and self._reaches(self.stretch) else ""
        return ("PASS" if self.passed else "FAIL") + star

    def _reaches(self, level: float) -> bool:
        return self.value >= level if self.better == "higher" else self.value <= level

    def record(self) -> dict:
        """The row as it is written: flat, `pass` computed."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "context"}
        return {**fields, "pass": self.passed, **dataclasses.asdict(self.context)}


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows in order, and what they were measured with."""

    rows: tuple[Row, ...]
    versions: dict[str, str]

    def __post_init__(self):
        seen = [row.id for row in self.rows]
        twice = sorted({name for name in seen if seen.count(name) > 1})
        if twice:
            raise ReportError(f"row ids must differ; given twice: {', '.join(twice)}")

    @property
    def failures(self) -> tuple[str, ...]:
        """Ids of the rows whose bar is missed."""
        return tuple(row.id for row in self.rows if row.passed is False)

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Why bars were not judged, each reason once."""
        return tuple(dict.fromkeys(f"{UNJUDGED}: needs {row.needs}" for row in self.rows if row.needs))


def write(path: pathlib.Path, report: Report) -> None:
    """Write `report.json`; NaN is refused."""
    rows = [row.record() for row in report.rows]
    document = {"schema_version": SCHEMA_VERSION, "versions": report.versions, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def read(path: pathlib.Path) -> Report:
    """Read `report.json` back: equal to what was written. A foreign schema or an edited verdict is an error."""
    document = json.loads(path.read_text(), parse_constant=_refuse_constant)
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ReportError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {document.get('schema_version')}; "
            "write it again with `python -m eval.benchmark`"
        )
    return Report(tuple(_row(record) for record in document["rows"]), document["versions"])


def _row(record: dict) -> Row:
    names = {f.name for f in dataclasses.fields(Context)}
    context = Context(**{name: record[name] for name in names})
    row = Row(**{k: v for k, v in record.items() if k not in names and k != "pass"}, context=context)
    if row.passed != record["pass"]:
        raise ReportError(f"{row.id}: pass is written as {record['pass']} but value and bar give {row.passed}")
    return row


def _refuse_constant(name: str):
    raise ReportError(f"report.json holds {name}; an unknown number is null")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ReportError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def slug(name: str) -> str:
    """A name as a part of a row's id."""
    return re.sub("[^a-z0-9]+", "_", name.lower())


HEADER = ("row", "value", "unit", "95 % interval", "over seeds", "n", "seeds", "bar", "stretch", "")


def number(value: float | None) -> str:
    """Four significant digits, plain; an empty cell stays empty."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def cells(row: Row) -> tuple[str, ...]:
    """One row as text, in HEADER's order."""
    sign = ">=" if row.better == "higher" else "<="
    span, seeds = (
        "" if low is None else f"{number(low)} .. {number(high)}"
        for low, high in ((row.ci_low, row.ci_high), (row.seed_low, row.seed_high))
    )
    levels = ["" if level is None else f"{sign} {number(level)}" for level in (row.bar, row.stretch)]
    return (row.id, number(row.value), row.unit, span, seeds, number(row.n), number(row.seeds), *levels, row.verdict)


def table(report: Report, *, width: int = 120) -> Table:
    """The printed view: a missed bar is red, an empty cell dim; a narrow one leaves intervals and n to the page. Below
    it: why bars were not judged."""
    why = "\n".join(report.unjudged) or None
    view = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, caption=why, caption_justify="left")
    view.add_column("row", overflow="fold", min_width=30)
    wide = width >= 110
    for name in ("value", *(["95 % interval", "n"] if wide else []), "bar"):
        view.add_column(name, no_wrap=True, justify="right", min_width=4)
    view.add_column("", no_wrap=True, justify="right", min_width=len(UNJUDGED) if why else 4)
    for row in report.rows:
        name, value, unit, span, _, n, seeds, bar, _, verdict = cells(row)
        count = f"{n} x {seeds}" if seeds else n
        style = {"PASS": "green", "FAIL": "bold red"}.get(verdict[:4], "")
        middle = [span, count] if wide else []
        shown = (name, f"{value} {unit}".strip() if value else "", *middle, bar, Text(verdict, style=style))
        view.add_row(*shown, style="dim" if row.value is None else "")
    return view


def markdown(report: Report) -> str:
    """The README's view: the same cells as a Markdown table, with the commit and command that made them."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in report.rows]
    contexts = {
        (row.context.commit, row.context.command, row.context.teacher, row.context.device) for row in report.rows
    }
    lines += ["", *(f"`{c[1]}` at commit {c[0]}, teacher: {c[2]}, on {c[3]}" for c in sorted(contexts))]
    lines += ["", *report.unjudged] * bool(report.unjudged)
    return "\n".join(lines) + "\n"
