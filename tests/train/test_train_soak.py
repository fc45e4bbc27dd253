"""kill -9 at twenty random moments of training: the result equals the uninterrupted run, bit for bit."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from train import checkpoint

KILLS, STEPS = 20, 1000
OPTIONS = ["--preset", "tiny", "--steps", str(STEPS), "--eval-every", "5", "--log-every", "1", "--host-devices", "2"]


def start(source: pathlib.Path, out: pathlib.Path) -> subprocess.Popen:
    resume = ["--resume"] if (out / "config.json").exists() else []
    command = [sys.executable, "-m", "train.main", "--store", str(source), "--out", str(out), *OPTIONS, *resume]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def wait_for_a_step(child: subprocess.Popen, log: pathlib.Path) -> None:
    """Until the log moves: the loop is running."""
    before = log.stat().st_mtime_ns if log.exists() else 0
    while child.poll() is None and (not log.exists() or log.stat().st_mtime_ns == before):
        time.sleep(0.005)


def leaves(slot: checkpoint.Slot) -> dict[str, np.ndarray]:
    saved = ocp.metadata(slot.folder / str(slot.newest())).metadata
    tree, progress = slot.load({name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in saved.items()})
    return {name: np.asarray(value) for name, value in tree.items()} | {"progress": progress}


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_kills_change_nothing(stored, tmp_path):
    straight, killed, rng = tmp_path / "straight", tmp_path / "killed", random.Random(0)
    assert start(stored, straight).wait() == 0
    kills = 0
    while kills < KILLS:
        child = start(stored, killed)
        if kills % 4:  # one kill in four falls into the start: imports, store, checkpoint, compilation
            wait_for_a_step(child, killed / "metrics.jsonl")
            time.sleep(rng.uniform(0, 0.3))
        else:
            time.sleep(rng.uniform(0, 6))
        assert child.poll() is None, "training was over before the kills were: raise STEPS"
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    assert start(stored, killed).wait() == 0
    assert (straight / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    for which in ("last", "best"):
        ours, theirs = (leaves(checkpoint.Slot(run / which)) for run in (straight, killed))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=f"{which}: {name}")
