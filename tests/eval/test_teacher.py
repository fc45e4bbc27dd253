"""The teacher as a subprocess: the command line, what is merged, what is refused. Nothing here starts it."""

import json
import sys

import numpy as np
import pytest
import safetensors.numpy

from bridge import conditions, outcomes
from eval import teacher

TEACHER = teacher.Teacher("standin-robot", "d7", tokenizer="words/")
ASKED = {"split": "train", "tasks": ("a", "b"), "seeds": range(4, 6)}


def line(task, seed, **changes):
    fields = {
        "suite": "metaworld",
        "policy": "teacher",
        "digest": "d7",
        "condition": "noise",
        "rules": conditions.rules("noise"),
    }
    fields |= {"task": task, "goal_seed": seed, "student_seed": None, "instruction": "x", "success": True, "steps": 3}
    return json.dumps({**fields, **changes}) + "\n"


class Runner:
    """Notes the command and writes the lines that the real one would."""

    def __init__(self, reason="", **changes):
        self.commands, self.reason, self.changes = [], reason, changes

    def __call__(self, command):
        self.commands.append(command)
        if not self.reason:
            place, tasks = command[command.index("--out") + 1], command[command.index("--tasks") + 1 :]
            with open(place, "a") as file:
                file.writelines(line(task, seed, **self.changes) for task in tasks for seed in ASKED["seeds"])
        return self.reason


@pytest.fixture
def ledger(tmp_path):
    return outcomes.Ledger(tmp_path / "raw" / "episodes.jsonl")


def test_the_command_line_is_the_one_that_closed_loop_takes(ledger):
    runner = Runner()
    assert teacher.act(TEACHER, ledger, "noise", **ASKED, runner=runner) == ""
    given = [sys.executable, "-m", "teacher_torch.closed_loop", "--teacher", "standin-robot", "--episodes", "2"]
    given += ["--split", "train", "--condition", "noise", "--out", str(ledger.path), "--tokenizer", "words/"]
    given += ["--digest", TEACHER.digest]
    assert runner.commands == [[*given, "--tasks", "a", "b"]]
    assert len(ledger.of("teacher", None, "noise")) == 4


def test_only_tasks_that_lack_episodes_are_asked_for(ledger):
    ledger.path.parent.mkdir()
    ledger.path.write_text(line("a", 4) + line("a", 5) + line("b", 4))
    ledger.reload()
    runner = Runner()
    teacher.act(TEACHER, ledger, "noise", **ASKED, runner=runner)
    assert runner.commands[0][-2:] == ["--tasks", "b"]
    again = Runner()
    teacher.act(TEACHER, ledger, "noise", **ASKED, runner=again)
    assert again.commands == []


def test_a_reason_is_passed_on(ledger):
    assert teacher.act(TEACHER, ledger, "noise", **ASKED, runner=Runner("No module named 'torch'")).endswith("'torch'")


def test_episodes_of_another_teacher_are_refused(ledger):
    with pytest.raises(outcomes.OutcomeError, match="--teacher"):
        teacher.act(TEACHER, ledger, "noise", **ASKED, runner=Runner(digest="d8"))
    with pytest.raises(outcomes.OutcomeError, match="another teacher"):
        teacher.act(TEACHER, ledger, "normal", **ASKED, runner=Runner())


def test_videos_are_asked_for_goal_by_goal(ledger, tmp_path):
    runner = Runner("enough")
    pairs = [("a", 4), ("b", 5)]
    reason = teacher.film(TEACHER, ledger, tmp_path, split="train", episodes=2, pairs=pairs, runner=runner)
    assert reason == "enough"
    assert runner.commands[0][-6:] == ["--tasks", "a", "--videos", str(tmp_path), "--video-seeds", "4"]
    silent = Runner()
    silent.reason = "x"
    assert teacher.film(TEACHER, ledger, tmp_path, split="train", episodes=2, pairs=[], runner=silent) == ""
    assert silent.commands == []


def test_run_gives_the_last_words_of_what_fails():
    assert teacher.run([sys.executable, "-c", "import sys; sys.exit('no such thing')"]) == "no such thing"
    assert teacher.run([sys.executable, "-c", ""]) == ""


def test_size_and_measurements_are_read_from_the_folder_without_torch(tmp_path):
    arrays = {"x": np.zeros((3, 5), np.float32), "y": np.zeros(2, np.float16)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "provenance.json").write_text(json.dumps({"measured": {"action_r2": 0.5}}))
    assert teacher.parameters(str(tmp_path)) == 17
    assert teacher.measured(str(tmp_path)) == {"action_r2": 0.5}


def test_a_teacher_that_is_not_here_has_no_size(tmp_path):
    assert teacher.parameters("someone/on-the-hub") is None
    assert teacher.measured("someone/on-the-hub") == {}
