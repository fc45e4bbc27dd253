"""kill -9 at twenty random moments of an extraction: the store ends bit-identical to an uninterrupted one."""

import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from bridge import episodes
from bridge.lerobot_spec import Spec

KILLS = 20
COMMAND = (sys.executable, "-m", "teacher_torch.extract", "--teacher", "random", "--device", "cpu")
SIZE = ("--limit", "8", "--group", "2", "--batch-size", "2")
ROBOT = Spec(fps=20, videos={"top": (32, 32)}, state={"hand": 3}, action={"delta": 3})


def record(folder: pathlib.Path) -> None:
    """A dataset of eight episodes, of instructions of unequal length."""
    rng, writer = np.random.default_rng(0), episodes.create(folder, ROBOT)
    for number in range(8):
        writer.add(
            frames={"top": rng.integers(0, 256, (20, 32, 32, 3), np.uint8)},
            state={"hand": rng.standard_normal((20, 3), np.float32)},
            action={"delta": rng.standard_normal((20, 3), np.float32)},
            instruction="open it" if number % 3 else "close the other one",
        )
    writer.close()


@pytest.fixture(params=["arc", "robot"])
def start(request, tmp_path):
    """(folder) -> a process that extracts into it."""
    task = ["--task", request.param]
    if request.param == "robot":
        record(tmp_path / "dataset")
        task += ["--dataset", str(tmp_path / "dataset"), "--stride", "2"]

    def starting(folder: pathlib.Path) -> subprocess.Popen:
        return subprocess.Popen([*COMMAND, *task, *SIZE, "--out", str(folder)], stdout=subprocess.DEVNULL)

    return starting


def markers(folder: pathlib.Path) -> int:
    return len(list(folder.glob("commits/*.json")))


def kill(process: subprocess.Popen, folder: pathlib.Path, rng: random.Random, startup: float) -> None:
    """Kill during start-up, or a random while after a random number of further commits."""
    before, commits = markers(folder), rng.randint(0, 3)
    if commits == 0:
        time.sleep(rng.uniform(0, startup))
    while process.poll() is None and markers(folder) < before + commits:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
    process.kill()
    process.wait()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_at_random_moments_changes_no_byte(start, tmp_path):
    started = time.monotonic()
    whole = start(tmp_path / "whole")
    while not markers(tmp_path / "whole"):
        assert whole.poll() is None
        time.sleep(0.01)
    startup = time.monotonic() - started
    assert whole.wait() == 0
    rng = random.Random(0)
    for _ in range(KILLS):
        process = start(tmp_path / "killed")
        kill(process, tmp_path / "killed", rng, startup)
        assert process.returncode == -9
    assert 0 < markers(tmp_path / "killed") < markers(tmp_path / "whole")
    assert start(tmp_path / "killed").wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
