"""The race in heats, against children that are ten lines long: who meets whom, what is kept, what a restart runs."""

import sys

import pytest

from eval import size_race, timing
from eval.size_race import Entry

CHILD = """
import json, sys
print(json.dumps({"event": "ready", "compile_s": 1.0, "steps": {"vision": 4}}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "run":
        seconds = 0.1 * request.get("batch", 1) * request.get("share", 1) + (request.get("mode") == "eager")
        answer = {"event": "result", "seconds": [seconds] * request["repeats"]}
    elif request["do"] == "memory":
        answer = {"event": "memory", "peak_bytes": 7, "device_peak_bytes": None}
    elif request["do"] == "steps":
        answer = {"event": "steps", "steps": {"vision": 4 * request["share"]}}
    else:
        answer = {"event": "rate", "flops_per_s": request["shape"]["m"]}
    print(json.dumps(answer), flush=True)
"""
PLAN = timing.Plan(rounds=2, repeats=2, seconds=100, watch=0)


def entry(name, code=CHILD, **options):
    return Entry(name, [sys.executable, "-c", code], **options)


def race(small, heavy, out, *, resume=False, preset="tiny"):
    told = []
    kept = {"out": out, "resume": resume, "of": {"preset": preset}}
    tick = lambda what, done, total: told.append(what)  # noqa: E731
    return size_race.run(small, heavy, plan=PLAN, device="cpu", tick=tick, **kept), told


def test_the_small_meet_every_heavy_one_and_modes_are_lanes(tmp_path):
    student = entry("student_xla_float32", batches=(4,), shares=(0.5,), shape={"m": 5})
    teachers = [entry("teacher_bfloat16", modes=("eager", "compiled")), entry("teacher_float32", modes=("eager",))]
    found, told = race([student], teachers, tmp_path)
    assert set(found.seconds) == {
        "student_xla_float32",
        "student_xla_float32@4",
        "student_xla_float32@0.5",
        "teacher_bfloat16_eager",
        "teacher_bfloat16_compiled",
        "teacher_float32_eager",
    }
    assert len(found.seconds["student_xla_float32"]) == 2 * 2  # two calls of each heat, after the one that sizes them
    assert found.seconds["teacher_bfloat16_eager"][0] == pytest.approx(1.1)
    assert found.seconds["student_xla_float32@4"][0] == pytest.approx(0.4)
    assert found.seconds["student_xla_float32@0.5"][0] == pytest.approx(0.05)
    assert found.facts["student_xla_float32"]["bought"] == {"0.5": {"vision": 2}}
    assert found.facts["student_xla_float32"]["flops_per_s"] == 5
    assert found.facts["teacher_float32"]["peak_bytes"] == 7
    assert len(found.busy) == 2
    assert len(told) == 4


def test_a_restart_runs_no_heat_again(tmp_path):
    made = ([entry("student")], [entry("teacher_a"), entry("teacher_b")])
    first, _ = race(*made, tmp_path)
    (tmp_path / "heat_teacher_b.json").unlink()
    second, told = race(*made, tmp_path, resume=True)
    assert set(told) == {"heat 2 of 2: teacher_b"}
    assert second.seconds.keys() == first.seconds.keys()
    _, again = race(*made, tmp_path, resume=True, preset="standin")
    assert set(again) == {"heat 1 of 2: teacher_a", "heat 2 of 2: teacher_b"}, "another student's heats are not its own"


def test_who_has_no_room_or_does_not_start_has_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(size_race, "_free_bytes", lambda: 8e9)
    large, broken = entry("teacher_float32", weights=10_000_000_000), entry("twin", "raise SystemExit('no torch')")
    found, _ = race([entry("student"), broken], [large], tmp_path)
    assert found.reasons["teacher_float32"] == "needs about 12.5 GB, 8.0 GB of memory are free"
    assert found.reasons["twin"] == "no torch"
    assert found.seconds["student"]


def test_one_that_dies_leaves_the_others_racing(tmp_path):
    dying = entry("twin", "import json\nprint(json.dumps({'event': 'ready', 'compile_s': 1.0}), flush=True)\ninput()")
    found, _ = race([entry("student"), dying], [], tmp_path)
    assert found.seconds["student"]
    assert found.reasons["twin"]
    assert found.facts["twin"] == {"event": "ready", "compile_s": 1.0}
