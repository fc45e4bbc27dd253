"""Rows refuse nonsense, a missed bar says FAIL, and every view shows the same cells."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from eval import report

CONTEXT = report.Context("stand-in", "none", "tiny", 1234, "cpu", "abc123", "python -m eval.benchmark")


def row(**changes):
    fields = {"id": "vision.student.r2_mean.test", "value": 0.9512, "unit": "R²", "n": 400, "seeds": 3, "bar": 0.95}
    return report.Row(**{**fields, **changes}, context=CONTEXT)


def full():
    missed = row(id="vision.student.r2_p10.test", value=0.5, bar=0.85, ci_low=0.4, ci_high=0.6)
    empty = row(id="speed.teacher_float32.p50", value=None, bar=None, n=None, seeds=None, note="torch is not installed")
    return report.Report((row(), missed, empty), {"jax": "0"})


def test_json_round_trip_is_equal(tmp_path):
    report.write(tmp_path / "report.json", full())
    assert report.read(tmp_path / "report.json") == full()


def test_record_carries_every_field_of_the_design(tmp_path):
    wanted = "id value unit n seeds ci_low ci_high bar stretch pass teacher environment preset active_parameters device"
    assert {*wanted.split(), "commit", "command"} <= row().record().keys()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["value", "ci_low", "bar"])
def test_not_a_number_is_refused(name, bad):
    with pytest.raises(report.ReportError, match=name):
        row(**{name: bad})


def test_nan_in_a_file_is_refused(tmp_path):
    report.write(tmp_path / "report.json", full())
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace("0.9512", "NaN"))
    with pytest.raises(report.ReportError, match="NaN"):
        report.read(path)


def test_an_edited_verdict_is_refused(tmp_path):
    path = tmp_path / "report.json"
    report.write(path, full())
    document = json.loads(path.read_text())
    document["rows"][1]["pass"] = True
    path.write_text(json.dumps(document))
    with pytest.raises(report.ReportError, match="r2_p10"):
        report.read(path)


def test_a_foreign_schema_names_the_command(tmp_path):
    (tmp_path / "report.json").write_text('{"schema_version": 99, "rows": []}')
    with pytest.raises(report.ReportError, match=r"eval\.benchmark"):
        report.read(tmp_path / "report.json")


@pytest.mark.parametrize(
    ("value", "better", "verdict"),
    [(0.95, "higher", "PASS"), (0.94, "higher", "FAIL"), (0.96, "lower", "FAIL"), (0.9, "lower", "PASS")],
)
def test_bars(value, better, verdict):
    assert row(value=value, better=better).verdict == verdict


def test_no_bar_no_verdict_and_a_bar_without_a_value_is_missed():
    assert row(bar=None).verdict == ""
    assert row(value=None, note="not measured").verdict == "FAIL"


def unjudged():
    needs = ">= 50 episodes a task over >= 8 tasks"
    low = row(id="metaworld.student.value_over_demonstrations.test", value=0.1, unit="of noise floor", needs=needs)
    return report.Report((row(id="a.b.met"), low, row(id="a.b.empty", value=None, note="why", needs=needs)), {})


def test_what_cannot_be_judged_neither_passes_nor_fails_and_says_what_it_needs(tmp_path):
    found = unjudged()
    assert [one.verdict for one in found.rows] == ["PASS", "not judged", "not judged"]
    assert found.failures == ()
    assert found.unjudged == ("not judged: needs >= 50 episodes a task over >= 8 tasks",)
    report.write(tmp_path / "report.json", found)
    assert report.read(tmp_path / "report.json") == found
    written = json.loads((tmp_path / "report.json").read_text())["rows"][1]
    assert (written["value"], written["bar"], written["pass"]) == (0.1, 0.95, None)
    assert written["needs"] == found.rows[1].needs


def test_every_view_shows_value_and_bar_of_what_is_not_judged_and_the_reason_once():
    for text in (printed(80, unjudged()), report.markdown(unjudged())):
        line = next(line for line in text.splitlines() if "0.1" in line)
        assert ">= 0.95" in line
        assert "not judged" in line
        assert text.count("needs >= 50 episodes a task over >= 8 tasks") == 1


def test_a_file_cannot_call_a_missed_bar_unjudged_by_halves(tmp_path):
    path = tmp_path / "report.json"
    report.write(path, full())
    document = json.loads(path.read_text())
    document["rows"][1]["needs"] = "more"
    path.write_text(json.dumps(document))
    with pytest.raises(report.ReportError, match="r2_p10"):
        report.read(path)


def test_without_a_bar_nothing_is_left_unjudged():
    with pytest.raises(report.ReportError, match="nothing to judge"):
        row(bar=None, needs="more")


def test_reaching_the_stretch_value_is_starred():
    assert row(stretch=0.951).verdict == "PASS*"
    assert row(stretch=0.99).verdict == "PASS"


def test_failures_are_listed():
    assert full().failures == ("vision.student.r2_p10.test",)


def test_an_empty_cell_needs_a_reason():
    with pytest.raises(report.ReportError, match="why"):
        row(value=None, bar=None)


@pytest.mark.parametrize("name", ["r2", "vision.r2", "Vision.student.r2", "vision.student.r2 mean"])
def test_bad_ids_are_refused(name):
    with pytest.raises(report.ReportError, match="row id"):
        row(id=name)


def test_ids_are_unique():
    with pytest.raises(report.ReportError, match="given twice"):
        report.Report((row(), row()), {})


def test_unknown_provenance_is_refused():
    with pytest.raises(report.ReportError, match="stand-in"):
        dataclasses.replace(CONTEXT, teacher="mock")


def printed(width, shown=None):
    console = Console(width=width, file=io.StringIO())
    console.print(report.table(shown or full(), width=width))
    return console.file.getvalue()


def test_views_show_the_same_cells():
    for line in full().rows:
        name, value, unit, span, _, _, _, bar, _, verdict = report.cells(line)
        assert all(cell in printed(160) for cell in (name, value, span, bar, verdict))
        assert all(cell in report.markdown(full()) for cell in (name, value, unit, span, bar, verdict))


def test_the_printed_table_cuts_nothing_off_on_a_narrow_terminal():
    assert "…" not in printed(80)
    assert "0.9512 R²" in printed(80)
    assert "400 x 3" in printed(160)
    assert "FAIL" in printed(80)
    assert "vision.student.r2_mean.test" in printed(80)


def test_markdown_leaves_empty_cells_empty():
    line = next(line for line in report.markdown(full()).splitlines() if "speed.teacher" in line)
    assert [cell.strip() for cell in line.split("|")[2:3]] == [""]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.95123, "0.9512"), (12.0, "12"), (48_500_000, "48,500,000"), (1234.56, "1,234.6")]
)
def test_numbers(value, text):
    assert report.number(value) == text


def test_a_name_becomes_part_of_an_id():
    assert report.slug("demonstrations+Tokens") == "demonstrations_tokens"
    assert report.slug("held-out") == "held_out"
