"""The families suite: what is asked under each condition, how answers are judged, its rows' bars, the real command."""

import dataclasses
import json

import numpy as np
import pytest

from bridge import arc, families
from eval import benchmark, puzzle_rows, puzzles, report
from train import arc_tasks

CONTEXT = report.Context("none", "none", "tiny", 1000, "cpu", "abc", "command")
NAMES = [family.name for family in families.FAMILIES]


def asked(condition="normal", names=("recolour", "flip_horizontal"), count=8):
    return puzzles.ask(names, count, condition, split="test")


def test_the_query_is_the_same_whatever_the_demonstrations():
    normal, episode, family = (asked(condition) for condition in puzzles.CONDITIONS)
    for one, other, strange in zip(normal, episode, family, strict=True):
        for changed in (other, strange):
            np.testing.assert_array_equal(one.frames[:, -1], changed.frames[:, -1])
            np.testing.assert_array_equal(one.answers, changed.answers)
            assert (one.frames[:, :-1] != changed.frames[:, :-1]).any(axis=(1, 2, 3)).all()


def test_another_familys_demonstrations_are_none_of_its_own():
    for one, strange in zip(asked(names=NAMES), asked("other_family", names=NAMES), strict=True):
        own, others = ({row.tobytes() for row in each.frames[:, :-1]} for each in (one, strange))
        assert not own & others


def test_a_query_without_its_output_has_the_same_frames(monkeypatch):
    shown = [one.frames for one in asked(names=NAMES, count=20)]
    blank = families.episode

    def blanked(*given, **more):
        task = blank(*given, **more)
        return dataclasses.replace(task, test=(arc.Pair(task.test[0].input, np.zeros((1, 1), np.int8)),))

    monkeypatch.setattr(families, "episode", blanked)
    for one, before in zip(asked(names=NAMES, count=20), shown, strict=True):
        assert one.frames.shape[1:] == (7, 6, 6)
        np.testing.assert_array_equal(one.frames, before)


@pytest.mark.parametrize("family", [each for each in families.FAMILIES if each.parametric], ids=lambda each: each.name)
def test_the_rule_of_the_other_episode_answers_otherwise(family):
    tasks = list(families.episodes([family.name], "test", 40))
    for task, other in zip(tasks, puzzles.partners(family.name, tasks, "test", seed=0), strict=True):
        rule, _ = family.draw(families.stream(family.name, "test", other))
        assert not puzzles._answers(rule, task.test[0])


@pytest.mark.parametrize("words", [["--suite", "sage"], ["--control", "a=b"], ["--store", "families-10"]])
def test_what_does_not_fit_puzzles_is_refused(puzzled, tmp_path, words):
    assert benchmark.main(["--run", str(puzzled), "--out", str(tmp_path), "--quick", *words]) == 2


def test_a_right_answer_is_right_in_every_cell_and_in_size():
    (one, _) = asked()
    perfect = puzzles.judge(one, one.answers[None], np.zeros(8))
    assert perfect.exact.all()
    assert perfect.size.all()
    assert (perfect.cells == 1).all()
    said = one.answers.copy()
    row, column = np.argwhere(said[0] != arc.OUTSIDE)[0]
    said[0, row, column] = (said[0, row, column] + 1) % 10
    said[1][said[1] == arc.OUTSIDE] = 0
    found = puzzles.judge(one, said[None], np.zeros(8))
    assert not found.exact[0, 0]
    assert found.size[0]
    assert found.exact[0, 2:].all()
    assert (one.answers[1] == arc.OUTSIDE).any()
    assert not found.size[1]
    assert found.cells[1] == 1


def test_the_trivial_solve_next_to_nothing():
    for one in asked(names=NAMES, count=30):
        for name, said in puzzles.TRIVIAL.items():
            rate = puzzles.judge(one, said(one)[None], np.zeros(30)).exact.mean()
            assert rate <= 0.2, (one.family, name)


def test_the_nearest_demonstration_is_the_one_most_like_the_query():
    (one, _) = asked(count=1)
    for number in range(3):
        frames = one.frames.copy()
        frames[:, -1] = frames[:, 2 * number]
        told = puzzles.nearest(dataclasses.replace(one, frames=frames))
        np.testing.assert_array_equal(told, frames[:, 2 * number + 1])


def test_predictions_are_grids():
    (one, _) = asked(count=2)
    found = puzzles.predictions([puzzles.judge(one, one.answers[None], np.zeros(2))])
    assert found["recolour-0"][0]["attempt_1"] == puzzles.rectangle(one.answers[0]).tolist()
    holed = np.full((6, 6), arc.OUTSIDE, np.uint8)
    holed[1, 1] = 3
    assert puzzles.rectangle(holed) is None


def outcomes(condition, share, count=200, names=NAMES):
    found = []
    for one in asked(condition, names, count):
        said = one.answers.copy()
        said[round(share * count) :] = arc.OUTSIDE
        found.append(puzzles.judge(one, said[None], np.zeros(count)))
    return found


def results(normal, other_episode=0.1, other_family=0.0, count=200):
    rates = {"normal": normal, "other_episode": other_episode, "other_family": other_family}
    found = {condition: [outcomes(condition, share, count)] for condition, share in rates.items()}
    held_out = [outcomes("normal", 0.1, count, [family.name for family in families.HELD_OUT])]
    return puzzle_rows.Results(found, held_out)


def rows(normal, **given):
    made = puzzle_rows.rows(results(normal, **given), CONTEXT)
    return {row.id.removeprefix("families.").removesuffix(".test"): row for row in report.Report(tuple(made), {}).rows}


def test_bars_are_met_and_missed():
    good, bad = rows(0.95), rows(0.85, other_episode=0.3, other_family=0.1)
    for name in ("student.learned", "student.exact_other_family", "student.exact_other_episode"):
        assert good[name].passed, name
        assert bad[name].passed is False, name
    assert good["student.learned"].value == 16
    assert good["student.exact.recolour"].value == pytest.approx(0.95)
    assert good["student.exact"].ci_low < 0.95 < good["student.exact"].ci_high


def test_larger_puzzles_have_no_bars():
    large = puzzle_rows.rows(dataclasses.replace(results(0.85), most=10), CONTEXT)
    assert all(row.bar is None and row.id.startswith("families_10.") for row in large)


def test_few_queries_are_not_judged():
    few = rows(0.95, count=20)
    assert few["student.learned"].passed is None
    assert "200" in few["student.learned"].needs


def test_a_query_counts_once_however_many_students_met_it():
    once, twice = outcomes("normal", 0.5, 20), outcomes("normal", 0.5, 20)
    one, both = puzzle_rows.share([once]), puzzle_rows.share([once, twice])
    assert (one.low, one.high) == (both.low, both.high)


def test_the_command_reports(puzzled, tmp_path, monkeypatch):
    monkeypatch.setitem(benchmark.puzzle_suite.COUNT, "quick", 4)
    assert benchmark.main(["--run", str(puzzled), "--out", str(tmp_path), "--quick"]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert len([row for row in found["rows"] if row["id"].startswith("families.student.exact.")]) == 21
    assert len(json.loads((tmp_path / "raw/predictions.json").read_text())) == 16 * 4
    dial = [row for row in found["rows"] if row["id"].startswith("families.student.exact_atp_")]
    assert len(dial) == len(puzzles.SHARES)
    timed = {row["id"]: row for row in found["rows"] if row["id"].startswith("families.grid_")}
    assert timed["families.grid_p50.test"]["value"] > 0
    assert timed["families.grid_over_hardware.test"]["bar"] == 2.0
    assert dial[0]["note"].startswith("0.00 ATP")
    assert "Failed" in (tmp_path / "report.html").read_text()


def test_a_run_that_solves_no_grids_says_what_to_train(puzzled, monkeypatch, capsys, tmp_path):
    load = benchmark.puzzle_suite.runs.load

    def blind(folders, which):
        (run,) = load(folders, which)
        student = dataclasses.replace(run.record.student, grid=None)
        return [dataclasses.replace(run, record=dataclasses.replace(run.record, student=student))]

    monkeypatch.setattr(benchmark.puzzle_suite.runs, "load", blind)
    assert benchmark.main(["--run", str(puzzled), "--out", str(tmp_path), "--quick"]) == 2
    assert "--store families" in capsys.readouterr().err


def test_material_and_suite_draw_the_same_kind_of_frames():
    (one, _) = asked(count=1)
    assert arc_tasks.render(one.frames).shape == (1, 7, 24, 24, 3)
