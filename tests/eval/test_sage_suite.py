"""The sage suite's real command on an untrained orchestrated student, with simulators that only pretend."""

import json

import pytest

from bridge import lanes, metaworld_tasks, outcomes
from eval import benchmark, notebook, report, sage

TASKS = ("drawer-open", "faucet-open")
pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def arguments(make_orchestrated):
    given = ["--suite", "sage", "--run", str(make_orchestrated()), "--quick", "--draws", "20", "--episodes", "4"]
    return [*given, "--tasks", *TASKS]


@pytest.fixture(scope="module")
def out(arguments, fake_lanes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sage") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "Lanes", fake_lanes)
        patch.setattr(sage, "BUDGETS", 32)
        patch.setattr(sage, "TIMED", 2)
        assert benchmark.main([*arguments, "--out", str(folder)]) == 0
        again = benchmark.main([*arguments, "--out", str(folder), "--resume"])
    assert again == 0
    return folder


@pytest.fixture(scope="module")
def rows(out):
    return {row.id: row for row in report.read(out / "report.json").rows}


def test_every_turn_was_played_once(out):
    ledger = outcomes.Ledger(out / "raw" / "episodes.jsonl")
    for turn in sage.TURNS:
        split = "validation" if turn.known else "test"
        goals = {(task, seed) for task in TASKS for seed in metaworld_tasks.split_seeds(split, 4)}
        played = [one for one in ledger.of(turn.policy, 0, turn.condition) if (one.task, one.goal_seed) in goals]
        assert len(played) == len(goals), turn
    lines = (out / "raw" / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == 8 * len(sage.TURNS), "a resume runs nothing again"


def test_what_was_decided_lies_beside_the_outcomes(out):
    noted = notebook.read(out / "raw" / notebook.FILE)
    asked = notebook.of(noted, "sage", "covered")
    assert len(asked) == 8
    assert all(one.trust.shape[1] == 3 for one in asked)
    assert not notebook.of(noted, sage.BEFORE, "normal"), "a student without an H-module notes nothing"


def test_every_part_of_the_issue_has_its_row(rows):
    for name in ("steps_saved", "wall_saved", "over_all_steps_low", "violations", "dial_wrong_way", "saliency_score",
                 "failure_auroc", "trust_fell", "covered_over_trustless", "error_over_before"):  # fmt: skip
        assert f"sage.student.{name}.test" in rows or f"sage.student.{name}.validation" in rows, name
    assert rows["sage.student.violations.test"].value == 0
    assert rows["sage.student.over_all_steps_low.test"].passed is None, "eight episodes are not judged"
    assert {f"sage.{name}.step.test" for name in ("vision", "language", "control")} <= set(rows)


def test_the_page_draws_the_dial(out):
    text = (out / "report.html").read_text()
    assert "Quality against compute" in text
    assert json.loads((out / "report.json").read_text())["rows"]


def test_a_student_without_an_h_module_says_what_to_train(make_acting, tmp_path, capsys):
    assert benchmark.main(["--suite", "sage", "--run", str(make_acting()), "--out", str(tmp_path)]) == 2
    assert "--stage orchestration" in capsys.readouterr().err
