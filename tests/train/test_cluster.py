"""Two processes on this machine train what one does, stop together, and neither waits for one that is gone."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx

from bridge import store
from train import arc_tasks, checkpoint, data, main, metrics

OPTIONS = ["--preset", "tiny", "--steps", "400", "--eval-every", "3", "--share-every", "3", "--log-every", "1"]


def start(source: pathlib.Path, out: pathlib.Path, *more: str) -> list[subprocess.Popen]:
    """Two processes of one device each."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "train.main", "--store", str(source), "--out", str(out), *OPTIONS, *more]
    command += ["--host-devices", "1", "--coordinator", address, "--processes", "2", "--process"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, i], env=os.environ | {"JAX_PLATFORMS": "cpu"}, **streams) for i in "01"]


def wait_for_rows(children: list[subprocess.Popen], out: pathlib.Path, count: int) -> None:
    """Until the log has so many lines; the loop is then running."""
    log = out / "metrics.jsonl"
    while all(child.poll() is None for child in children) and log.read_text().count("\n") < count:
        time.sleep(0.05)


def weights(run: pathlib.Path) -> dict[str, np.ndarray]:
    student, _ = checkpoint.load_student(run, "last", "params")
    return checkpoint.named_leaves(nnx.to_pure_dict(nnx.state(student, nnx.Param)))


@pytest.fixture(scope="module")
def pair(stored, tmp_path_factory):
    """Four steps by two processes, and what each of them said."""
    out = tmp_path_factory.mktemp("pair") / "run"
    children = start(stored, out, "--stop-after", "4")
    said = [child.communicate(timeout=240) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    return out, [told for told, _ in said]


def test_two_processes_train_what_one_does(stored, pair, tmp_path):
    out, said = pair
    command = ["--store", str(stored), "--out", str(tmp_path / "run"), "--host-devices", "2", *OPTIONS]
    assert main.main([*command, "--stop-after", "4"]) == 0
    logs = (metrics.read(run / "metrics.jsonl") for run in (out, tmp_path / "run"))
    for ours, theirs in zip(*logs, strict=True):
        assert ours.keys() == theirs.keys()
        numbers = [(ours[name], theirs[name]) for name in ours if name != "kind"]
        np.testing.assert_allclose(*np.transpose(numbers), rtol=2e-3, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), weights(out), weights(tmp_path / "run"))
    assert "saved at step 4" in said[0]
    assert all(line.startswith("[Gloo]") for line in said[1].splitlines()), said[1]


def resumed(stored, pair, tmp_path, *, steps: int) -> tuple[pathlib.Path, list[subprocess.Popen]]:
    """Both processes going on with a copy of the run, once they have done so many steps."""
    out = tmp_path / "run"
    shutil.copytree(pair[0], out)
    children, before = start(stored, out, "--resume"), (out / "metrics.jsonl").read_text().count("\n")
    wait_for_rows(children, out, before + steps)
    return out, children


def test_a_signal_to_one_process_stops_both_after_the_same_step(stored, pair, tmp_path):
    out, children = resumed(stored, pair, tmp_path, steps=1)
    children[1].send_signal(signal.SIGTERM)
    said = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [128 + signal.SIGTERM] * 2, said
    assert f"saved at step {checkpoint.Slot(out / 'last').newest()}" in said[0][0]


def test_one_that_is_killed_ends_the_other_and_one_device_goes_on(stored, pair, tmp_path, capsys):
    out, children = resumed(stored, pair, tmp_path, steps=1)
    children[1].kill()
    _, said = children[0].communicate(timeout=120)
    children[1].communicate()
    assert children[0].returncode == 4, said
    assert "stopped: another process is gone" in said
    again = ["--store", str(stored), "--out", str(out), *OPTIONS, "--host-devices", "1", "--resume"]
    assert main.main(again) == 2
    assert "--elastic to go on all the same" in capsys.readouterr().err
    more = str(checkpoint.Slot(out / "last").newest() + 1)
    assert main.main([*again, "--elastic", "--stop-after", more]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "2"], "need --coordinator"),
        (["--coordinator", "host:1"], "needs --processes and --process"),
        (["--coordinator", "host", "--processes", "2", "--process", "0"], "expected HOST:PORT"),
        (["--coordinator", "host:1", "--processes", "2", "--process", "2"], "expected 0 to 1"),
    ],
)
def test_processes_that_are_half_named_are_refused(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main.main(words)
    assert said in " ".join(capsys.readouterr().err.split())


def test_each_process_reads_its_own_rows(stored):
    frames = data.Frames(store.open(stored), "train", features=("image_tokens",), cache_bytes=1e9)
    whole = data.training(frames, batch=8, seed=0)[5]
    halves = [data.training(frames, batch=8, seed=0, rows=rows)[5] for rows in (slice(0, 4), slice(4, 8))]
    for name, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), array)


def test_rows_of_a_batch_whose_samples_shape_each_other_are_those_of_the_whole():
    tasks, positions = arc_tasks.Tasks("train"), np.arange(6)
    whole, half = tasks.read(positions), data.part(tasks, positions, slice(3, 6))
    for name, array in whole.items():
        np.testing.assert_array_equal(half[name], array[3:])
