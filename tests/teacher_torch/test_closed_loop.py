"""The command that lets a teacher act, with a fake at the simulator's own boundary."""

import json

import pytest

from bridge import conditions, metaworld_tasks, simulator
from teacher_torch import closed_loop, standin

TEACHER = standin.Teacher("toy", None, "stand-in", "d" * 64, None, "none")


@pytest.fixture
def asked(monkeypatch):
    """Jobs that were run; drawer-open is solved at even seeds, nothing else ever."""
    jobs = []

    def run(policy, work, *, conditions, shared):
        for job in work:
            jobs.append(job)
            won = job.task == "drawer-open" and job.seed % 2 == 0
            yield simulator.Episode(job.task, job.seed, job.instruction, won, 12, 2)

    class Farm:
        def __init__(self, processes):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(simulator, "run", run)
    monkeypatch.setattr(closed_loop.lanes, "Lanes", Farm)
    monkeypatch.setattr(closed_loop, "load_actor", lambda options: (None, TEACHER))
    return jobs


def command(out, *extra):
    return closed_loop.main(["--out", str(out), "--episodes", "4", "--tasks", "drawer-open", "faucet-open", *extra])


def lines(out):
    return [json.loads(text) for text in out.read_text().splitlines()]


def test_every_episode_is_one_line_with_its_pairing(asked, tmp_path, capsys):
    assert command(tmp_path / "episodes.jsonl") == 0
    found = lines(tmp_path / "episodes.jsonl")
    seeds = list(metaworld_tasks.split_seeds("validation", 4))
    assert [(line["task"], line["goal_seed"]) for line in found] == [
        (task, seed) for task in ("drawer-open", "faucet-open") for seed in seeds
    ]
    assert found[0] | {"instruction": ""} == {
        "suite": "metaworld", "policy": "teacher", "digest": "d" * 64, "condition": "normal",
        "rules": conditions.rules("normal"), "task": "drawer-open", "goal_seed": seeds[0], "student_seed": None,
        "instruction": "", "success": True, "steps": 12,
    }  # fmt: skip
    assert "2 / 8 episodes solved" in capsys.readouterr().out


def test_what_is_there_is_not_run_again_and_a_torn_line_is(asked, tmp_path):
    out = tmp_path / "episodes.jsonl"
    command(out)
    whole = out.read_text()
    out.write_text(whole[: whole.rindex("{") + 20])
    asked.clear()
    assert command(out) == 0
    assert [(job.task, job.seed) for job in asked] == [
        ("faucet-open", metaworld_tasks.split_seeds("validation", 4)[-1])
    ]
    assert out.read_text() == whole


def test_conditions_are_kept_apart(asked, tmp_path):
    out = tmp_path / "episodes.jsonl"
    command(out)
    asked.clear()
    assert command(out, "--condition", "held-out") == 0
    assert len(asked) == 8
    assert all(job.instruction in metaworld_tasks.find(job.task).held_out for job in asked)
    assert len(lines(out)) == 16


def test_outcomes_of_another_teacher_are_not_mixed_in(asked, tmp_path, monkeypatch, capsys):
    out = tmp_path / "episodes.jsonl"
    command(out)
    other = standin.Teacher("toy", None, "stand-in", "e" * 64, None, "none")
    monkeypatch.setattr(closed_loop, "load_actor", lambda options: (None, other))
    assert command(out) == 2
    assert "another teacher" in capsys.readouterr().err


def test_a_teacher_that_was_not_meant_is_refused_before_it_acts(asked, tmp_path, capsys):
    assert command(tmp_path / "e.jsonl", "--digest", "e" * 64) == 2
    assert "is dddddddddddd, not eeeeeeeeeeee: name that one" in capsys.readouterr().err
    assert asked == []


def test_a_missing_teacher_is_one_line(tmp_path, capsys):
    assert closed_loop.main(["--teacher", "standin-none", "--out", str(tmp_path / "x.jsonl")]) == 2
    assert "standin-robot" in capsys.readouterr().err
