"""Quality against size: which rows of which reports become points."""

import dataclasses
import json

import pytest

from eval import report, size_curve

CONTEXT = report.Context("stand-in", "sim", "standin", 900, "cpu", "abc", "python -m eval.benchmark")


def made(preset, size, *, success, r2):
    context = dataclasses.replace(CONTEXT, preset=preset, active_parameters=size)
    span = {"ci_low": success - 0.1, "ci_high": success + 0.1, "n": 50}
    return report.Report(
        (
            report.Row("metaworld.student.success.test", success, "of episodes", context, bar=0.99, **span),
            report.Row("metaworld.student.success.drawer_open.test", 0.1, "of episodes", context),
            report.Row("metaworld.teacher.success.test", 0.95, "of episodes", context),
            report.Row("metaworld.student.action_r2.validation", r2, "R²", context),
        ),
        {"python": "3"},
    )


def write(folder, found):
    report.write(folder / "report.json", found)
    return str(folder)


def test_points_are_in_the_order_of_size_and_keep_their_interval():
    rows = size_curve.curve([made("large", 2700, success=0.9, r2=0.8), made("small", 300, success=0.5, r2=0.6)], "x")
    assert [row.id for row in rows] == [
        "size.curve.parameters.small",
        "size.curve.parameters.large",
        "size.curve.action_r2.small",
        "size.curve.action_r2.large",
        "size.curve.success.small",
        "size.curve.success.large",
    ]
    small = rows[4]
    assert (small.value, small.ci_low, small.n, small.context.active_parameters) == (0.5, 0.4, 50, 300)
    assert small.bar is None
    assert "python -m eval.benchmark" in small.note


def test_a_duel_gives_a_point_for_each_of_its_students():
    rows = []
    for name, size, value in (("first", 10, 0.9), ("second", 20, 0.8)):
        context = dataclasses.replace(CONTEXT, preset=name, active_parameters=size)
        rows.append(report.Row(f"duel.{name}.success", value, "of episodes", context))
        rows.append(report.Row(f"duel.{name}.difference", -10.0, "points", context))
    found = size_curve.curve([report.Report(tuple(rows), {})], "x")
    assert [(row.id, row.value) for row in found if "success" in row.id] == [
        ("size.curve.success.first", 0.9),
        ("size.curve.success.second", 0.8),
    ]


def test_the_command_writes_a_report_with_a_picture(tmp_path, capsys):
    folders = [
        write(tmp_path / name, made(name, size, success=0.5, r2=0.6))
        for name, size in (("a", 10), ("b", 20), ("c", 30))
    ]
    assert size_curve.main([*folders, "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["presets"] == 3
    assert "data:image/png" in (tmp_path / "out" / "report.html").read_text()
    assert len(report.read(tmp_path / "out" / "report.json").rows) == 9


@pytest.mark.parametrize(
    ("presets", "words"), [((("a", 10),), "two presets"), ((("a", 10), ("a", 10)), "one student per preset")]
)
def test_what_is_no_curve_is_refused(tmp_path, capsys, presets, words):
    folders = [
        write(tmp_path / str(index), made(name, size, success=0.5, r2=0.6))
        for index, (name, size) in enumerate(presets)
    ]
    assert size_curve.main([*folders, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_report_is_named(tmp_path, capsys):
    assert size_curve.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "report.json" in capsys.readouterr().err
