"""Rows of closed-loop success: ids, bars, which tasks are headline tasks, what is said where something is absent."""

import dataclasses

import numpy as np
import pytest

from bridge import metaworld_tasks
from eval import report, success, tally

TASKS = tuple(metaworld_tasks.TASKS)
CONTEXT = report.Context("stand-in", "sim", "standin", 1000, "cpu", "abc", "command")


def share(*shares, goals=20, seeds=1):
    """[seeds, tasks, goals], so many of each task's goals solved, the first ones."""
    solved = np.arange(goals)[None, :] < np.array(shares)[:, None] * goals
    return np.repeat(solved[None], seeds, axis=0)


def even(value, **sizes):
    return share(*[value] * len(TASKS), **sizes)


def results(changes=(), **fields):
    found = {
        ("teacher", "normal"): even(0.95),
        ("teacher", "blind"): share(0.9, 0.5, *[0.4] * 9),
        ("student", "normal"): even(0.95, seeds=3),
        ("demonstrations", "normal"): even(0.6, seeds=3),
        ("zeros", "normal"): even(0.0),
        ("student", "held-out"): even(0.9),
        ("student", "noise"): even(0.5),
        ("student", "swapped"): share(0.0, 0.05),
        **dict(changes),
    }
    found = {key: value for key, value in found.items() if value is not None}
    made = {"reasons": {}, "controls": ("demonstrations",), "parameters": {"student": 100, "teacher": 400}}
    return tally.Results(**{"tasks": TASKS, "split": "test", "episodes": 50, "found": found, **made, **fields})


def rows(made):
    return {row.id: row for row in success.Book(made, CONTEXT, draws=300, seed=0).rows()}


def test_the_headline_leaves_out_what_can_be_solved_blind():
    made = results()
    assert made.headline == list(range(2, 11))
    assert "9 tasks" in made.headline_note
    assert TASKS[0] not in made.headline_note
    assert "fewer" not in made.headline_note


def test_fewer_than_eight_headline_tasks_are_said_to_be_few():
    few = results({("teacher", "blind"): share(*[0.41] * 4, *[0.4] * 7)})
    assert "fewer than 8" in few.headline_note
    assert "fewer than 8" in rows(few)["metaworld.teacher.success_headline.test"].note


def test_without_a_teacher_every_cell_of_its_says_why():
    absent = {key: None for key in [("teacher", "normal"), ("teacher", "blind")]}
    found = rows(results(absent, reasons={"teacher": "No module named 'torch'"}))
    for name in ("student.ratio_headline", "teacher.success_headline", "teacher.success"):
        assert found[f"metaworld.{name}.test"].value is None
        assert "torch" in found[f"metaworld.{name}.test"].note
    assert found["metaworld.student.value_over_demonstrations.test"].value == pytest.approx(35)


def test_the_value_of_the_teacher_comes_first_with_its_bars():
    made = success.Book(results(), CONTEXT, draws=300, seed=0).rows()
    gain, p = made[:2]
    assert (gain.id, gain.bar, gain.unit) == ("metaworld.student.value_over_demonstrations.test", 10, "points")
    assert gain.value == pytest.approx(35)
    assert (p.id, p.bar, p.better, p.verdict) == (f"{gain.id[:-5]}_p.test", 0.05, "lower", "PASS")
    assert "63 goals won, 0 lost" in p.note


def test_a_control_that_was_not_trained_misses_the_bar_and_says_how():
    found = rows(results({("demonstrations", "normal"): None}, controls=()))
    row = found["metaworld.student.value_over_demonstrations.test"]
    assert row.verdict == "FAIL"
    assert "--control demonstrations=RUN" in row.note


def test_other_controls_are_compared_without_a_bar():
    more = {("demonstrations+tokens", "normal"): even(0.7, seeds=3)}
    found = rows(results(more, controls=("demonstrations", "demonstrations+tokens")))
    row = found["metaworld.student.value_over_demonstrations_tokens.test"]
    assert (row.value, row.bar) == (pytest.approx(25), None)


def test_an_uneven_control_is_named_as_such():
    found = rows(results(uneven={"demonstrations": "not like for like: other steps"}))
    gain = found["metaworld.student.value_over_demonstrations.test"]
    assert gain.note.startswith("not like for like")
    assert gain.verdict == "not judged"


def test_a_task_that_any_blind_policy_solves_is_no_headline_task():
    made = results({("nearest_instruction", "normal"): share(*[0.0] * 10, 0.6)})
    assert made.headline == list(range(2, 10))


def test_whether_further_seeds_would_show_it_is_asked_of_the_seeds():
    one, other = even(0.9, seeds=3), even(0.6, seeds=3).copy()
    other[0] = one[0]
    found = rows(results({("student", "normal"): one, ("demonstrations", "normal"): other}))
    over_goals, over_seeds = (found[f"metaworld.student.value_over_demonstrations_{p}.test"] for p in ("p", "p_seeds"))
    assert over_goals.verdict == "PASS"
    assert over_seeds.verdict == "FAIL"
    assert "paired t-test over 3 seeds: +0.0, +30.0, +30.0" in over_seeds.note


@pytest.mark.parametrize(
    ("name", "bar", "better"),
    [
        ("student.ratio_headline", 0.97, "higher"),
        ("student.ratio_headline_low", 0.92, "higher"),
        ("student.ratio_headline_user", 0.85, "higher"),
        ("student.parameters_ratio", 3.0, "higher"),
        ("student.success_swapped", 0.05, "lower"),
        ("student.success_held_out_ratio", 0.90, "higher"),
        ("teacher.success_headline", 0.90, "higher"),
        ("teacher_blind.headline_tasks", 8, "higher"),
    ],
)
def test_bars_are_the_ones_asked_for(name, bar, better):
    row = rows(results())[f"metaworld.{name}.test"]
    assert (row.bar, row.better, row.verdict) == (bar, better, "PASS")


def verdicts(made):
    found = [row for row in success.Book(made, CONTEXT, draws=50, seed=0).rows() if row.bar is not None]
    return {row.id.split(".", 1)[1].removesuffix(".test"): row for row in found}


def few_tasks(**fields):
    made = results(**fields)
    found = {key: array if key[1] == "swapped" else array[:, :5] for key, array in made.found.items()}
    return dataclasses.replace(made, tasks=TASKS[:5], found=found)


@pytest.mark.parametrize("made", [results(episodes=49), few_tasks(episodes=10), few_tasks()])
def test_bars_are_not_judged_on_fewer_episodes_or_tasks_than_they_are_defined_on(made):
    found = verdicts(made)
    assert found.pop("student.parameters_ratio").verdict == "PASS", "size depends on neither"
    swapped = found.pop("student.success_swapped")
    assert {row.verdict for row in found.values()} == {"not judged"}
    assert {row.needs for row in found.values()} == {">= 50 episodes a task over >= 8 tasks"}
    assert found["student.value_over_demonstrations"].bar == 10
    assert swapped.verdict == ("PASS" if made.episodes == 50 else "not judged")


def test_at_full_size_every_bar_is_judged_whatever_is_missing():
    """Even where the blind policy leaves fewer headline tasks than asked for, and a control is absent."""
    lacking = {("demonstrations", "normal"): None, ("teacher", "blind"): share(*[0.41] * 4, *[0.4] * 7)}
    found = verdicts(results(lacking, controls=()))
    assert {row.verdict for row in found.values()} == {"PASS", "FAIL"}
    for name in ("student.value_over_demonstrations", "teacher_blind.headline_tasks"):
        assert found[name].verdict == "FAIL"


def test_success_per_task_has_wilson_intervals_counts_and_seeds():
    found = rows(results())
    row = found["metaworld.student.success.drawer_open.test"]
    assert (row.value, row.n, row.seeds) == (0.95, 20, 3)
    assert (row.ci_low, row.ci_high) == pytest.approx((0.7639, 0.9911), abs=1e-3)  # Wilson of 19 in 20
    assert found["metaworld.teacher_blind.success.button_press_topdown.test"].value == 0.9
    assert len([name for name in found if name.startswith("metaworld.zeros.success.")]) == len(TASKS) + 1


def test_a_disturbed_student_is_compared_with_the_same_seeds_undisturbed():
    lucky = np.concatenate([even(1.0), even(0.0), even(0.0)])
    row = rows(results({("student", "normal"): lucky}))["metaworld.student.success_noise_ratio.test"]
    assert row.value == pytest.approx(0.5)


def test_a_poor_teacher_is_said_loudly():
    poor = results({("teacher", "normal"): even(0.45)})
    assert "means little" in poor.warning
    assert "means little" in rows(poor)["metaworld.teacher.success_headline.test"].note
    assert results().warning == ""


def test_no_headline_task_at_all_leaves_the_headline_empty():
    found = rows(results({("teacher", "blind"): even(0.8)}))
    assert found["metaworld.student.ratio_headline.test"].value is None
    assert found["metaworld.student.value_over_demonstrations.test"].verdict == "FAIL"


def test_ids_are_unique_and_every_row_is_of_the_simulator():
    made = success.Book(results(), CONTEXT, draws=50, seed=0).rows()
    report.Report(tuple(made), {})
    assert {row.context.environment for row in made} == {"sim"}
