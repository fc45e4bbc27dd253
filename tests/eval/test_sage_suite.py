"""The sage suite's real command on an untrained orchestrated student, with simulators that only pretend."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from bridge import lanes, metaworld_tasks, outcomes
from eval import benchmark, notebook, report, runs, sage
from train import witness

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


@pytest.fixture
def copied(make_orchestrated, make_acting, tmp_path):
    """An orchestrated run that was moved away together with the run it was built on."""
    for folder in (make_orchestrated(), make_acting()):
        shutil.copytree(folder, tmp_path / folder.name if folder == make_acting() else tmp_path / "sage")
    return tmp_path / "sage"


@pytest.mark.parametrize("damage", ["truncated", "of an earlier version"])
def test_what_the_host_judges_by_can_be_made_again(copied, damage, capsys):
    path = copied / witness.FILE
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        with np.load(path) as stored:
            kept = {name: stored[name] for name in stored if name != "margin"}
        np.savez(path, **kept)
    assert benchmark.main(["--suite", "sage", "--run", str(copied), "--out", str(copied / "report")]) == 2
    said = capsys.readouterr().err
    assert witness.FILE in said
    assert "--resume" in said


def test_the_run_it_was_built_on_is_found_beside_it_when_both_moved(copied, monkeypatch):
    run = runs.load([copied], "last")[0]
    gone = dataclasses.replace(run.record.config, init=f"/gone/{pathlib.Path(run.record.config.init).name}")
    moved = dataclasses.replace(run, record=dataclasses.replace(run.record, config=gone))
    assert sage.origin_of(moved).parent == copied.parent
    lost = dataclasses.replace(
        moved, record=dataclasses.replace(run.record, config=dataclasses.replace(gone, init="/gone/x"))
    )
    with pytest.raises(runs.RunError, match="neither there nor beside it"):
        sage.origin_of(lost)


def test_decisions_of_other_seeds_tasks_and_placements_are_left_out(out, arguments, tmp_path):
    kept = [json.loads(line) for line in (out / "raw" / notebook.FILE).read_text().splitlines()]
    mine = next(one for one in kept if one["policy"] == "sage" and one["condition"] == "normal")
    strangers = [mine | {"student_seed": 7}, mine | {"task": "window-open"}, mine | {"goal_seed": 10**9}]
    path = tmp_path / notebook.FILE
    path.write_text("".join(json.dumps(one) + "\n" for one in [*kept, *strangers]))
    students = runs.load([pathlib.Path(arguments[arguments.index("--run") + 1])], "last")
    ledger = outcomes.Ledger(out / "raw" / "episodes.jsonl")
    bench = sage.Bench(students, TASKS, 4, ledger, path, "test")
    plain = dataclasses.replace(bench, notes=out / "raw" / notebook.FILE)
    for key, found in plain.outcomes().notes.items():
        assert len(bench.outcomes().notes[key]) == len(found), key


def test_a_student_without_an_h_module_says_what_to_train(make_acting, tmp_path, capsys):
    assert benchmark.main(["--suite", "sage", "--run", str(make_acting()), "--out", str(tmp_path)]) == 2
    assert "--stage orchestration" in capsys.readouterr().err
