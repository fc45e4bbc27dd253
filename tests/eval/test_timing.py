"""The line protocol and the turns, against children that are ten lines long. No wall-clock assertion."""

import sys

import numpy as np
import pytest

from eval import timing

CHILD = """
import json, sys
print(json.dumps({"event": "ready", "parameters": 3}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["output"] == "bad":
        print(json.dumps({"event": "error", "message": "no such output"}), flush=True)
    elif request["output"] == "crash":
        raise SystemExit("out of memory, honestly")
    else:
        print(json.dumps({"event": "result", "seconds": [0.25] * request["repeats"]}), flush=True)
"""


def contestant(code=CHILD, **options):
    return timing.Contestant([sys.executable, "-c", code], **options)


def test_facts_and_turns():
    with contestant() as child:
        assert child.facts["parameters"] == 3
        lane = timing.Lane("student", child, "image_tokens")
        timing.race([lane], timing.Plan(rounds=3, repeats=4, seconds=60, watch=0))
    assert len(lane.seconds) == 1 + 4 + 4  # the first turn only finds out how long a call takes
    assert lane.samples.tolist() == [0.25] * 8


def test_slow_calls_shorten_the_turns_and_the_time_is_kept():
    with contestant() as child:
        lane = timing.Lane("teacher", child, "image_tokens")
        timing.race([lane], timing.Plan(rounds=10, repeats=50, seconds=1.0, watch=0))
    assert len(lane.seconds) == 5  # 1.25 s is over the second; every turn had room for one call


def test_lanes_take_turns_and_the_first_changes():
    order = []

    class Recorder:
        def ask(self, wanted, *, output, **request):
            order.append(output)
            return {"seconds": [0.1]}

    lanes = [timing.Lane(name, Recorder(), name) for name in "ab"]
    timing.race(lanes, timing.Plan(rounds=3, repeats=1, seconds=10, watch=0))
    assert "".join(order) == "abbaab"


@pytest.mark.parametrize(("output", "reason"), [("bad", "no such output"), ("crash", "out of memory, honestly")])
def test_a_failing_lane_keeps_its_reason_and_the_race_goes_on(output, reason):
    with contestant() as broken, contestant() as sound:
        lanes = [timing.Lane("broken", broken, output), timing.Lane("sound", sound, "image_tokens")]
        timing.race(lanes, timing.Plan(rounds=2, repeats=1, watch=0))
    assert lanes[0].failure == reason
    assert len(lanes[0].samples) == 0
    assert len(lanes[1].seconds) == 2


def test_a_child_that_never_starts_gives_its_last_words():
    with pytest.raises(timing.Unavailable, match="No module named 'torch'"):
        contestant("raise SystemExit(\"No module named 'torch'\")")


def test_a_silent_child_is_given_up():
    with pytest.raises(timing.Unavailable, match="no answer within"):
        contestant("import time; time.sleep(60)", limit=0.2)


def test_fake_devices_are_not_inherited(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8 --xla_b=2")
    assert timing._environment()["XLA_FLAGS"].split() == ["--xla_a=1", "--xla_b=2"]


def test_the_share_of_busy_cores_is_read_from_the_kernels_ticks(monkeypatch, tmp_path):
    lines = iter(["cpu 10 0 10 70 10 0 0 0 0 0", "cpu 40 0 40 100 20 0 0 0 0 0"])  # 60 busy, 40 idle or waiting
    monkeypatch.setattr(timing, "_ticks", lambda: np.array(next(lines).split()[1:9], float))
    assert timing.busy_share(0) == pytest.approx(0.6)
    monkeypatch.undo()
    monkeypatch.setattr(timing, "STAT", tmp_path / "none")
    assert timing.busy_share(0) == 0.0


def test_a_gpu_is_shared(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert timing._environment()["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_samples_without_any_turn_are_empty():
    assert timing.Lane("x", None, "y").samples.shape == np.array([]).shape
