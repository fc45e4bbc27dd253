"""A compact store straight from the teacher equals one made of the exact store; workers write one store together."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from bridge import compact, store
from teacher_torch import robot_request, workers

FEW = ("--stride", "2", "--draws", "3", "--group", "2", "--batch-size", "2")
TOKENS = (
    "--features",
    "state",
    "frames",
    "instruction_id",
    "image_tokens",
    "saliency",
    "backbone_features",
    "image_mask",
)


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_straight_from_the_teacher_equals_a_conversion(run, tmp_path):
    assert run(*TOKENS, out="exact") == 0
    assert compact.main([str(tmp_path / "exact"), "--out", str(tmp_path / "converted"), "--drop"]) == 0  # what is named
    assert run(*TOKENS, "--profile", "compact") == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "converted")


def test_shards_write_one_compact_store_and_it_can_be_resumed(run, tmp_path):
    given = ("--profile", "compact", "--features", "state", "frames", "image_tokens", "path")
    assert run(*given, out="whole") == 0
    assert "path" in store.open(tmp_path / "whole").manifest.features
    for shard in ("1/2", "0/2"):
        assert run(*given, "--shard", shard) == 0
    (tmp_path / "store/commits/00001.json").unlink()
    assert run(*given) == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_one_profile_does_not_go_into_a_store_of_the_other(run, capsys):
    assert run("--features", "state", "image_tokens") == 0
    assert run("--features", "state", "image_tokens", "--profile", "compact") == 2
    assert "was begun with --profile exact: give that" in capsys.readouterr().err


def test_who_comes_second_takes_what_the_first_settled(run, tmp_path, monkeypatch):
    """Two begin at once and find room for batches of different sizes: whose manifest is there first has his way."""
    assert run("--batch-size", "1", out="whole") == 0
    begin, first = robot_request.Setting.begin, []

    def late(setting, manifest):
        if not first:
            first.append(setting)
            assert run("--batch-size", "1", "--shard", "0/2") == 0
        return begin(setting, manifest)

    monkeypatch.setattr(robot_request.Setting, "begin", late)
    assert run("--shard", "1/2") == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(("shard", "expected"), [("0/1", ["0/2", "1/2"]), ("1/3", ["1/6", "4/6"])])
def test_workers_share_their_machines_shard(shard, expected):
    options = robot_request.Options(workers=2, shard=shard)
    shares = [workers.share(options, worker) for worker in range(2)]
    assert [each.shard for each in shares] == expected
    assert {each.workers for each in shares} == {1}


def children(parent: int) -> list[int]:
    """Worker processes, once they have started."""
    listed = pathlib.Path(f"/proc/{parent}/task/{parent}/children")
    found = [int(pid) for pid in listed.read_text().split()] if listed.exists() else []
    return [pid for pid in found if b"spawn_main" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_killed_worker_is_named_and_others_can_go_on(run, teacher, dataset, tmp_path):
    assert run(*FEW, *TOKENS, out="whole") == 0
    command = [sys.executable, "-m", "teacher_torch.extract", "--task", "robot", "--teacher", str(teacher)]
    command += ["--dataset", str(dataset), "--device", "cpu", "--out", str(tmp_path / "store"), *FEW, *TOKENS]
    started = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True)
    while len(found := children(started.pid)) < 2 and started.poll() is None:
        time.sleep(0.01)
    os.kill(found[1], signal.SIGKILL)
    error = started.communicate()[1]
    assert started.returncode == 2
    assert "worker 1/2: ended with code -9; what is committed is kept" in error
    assert 0 < len(list((tmp_path / "store/commits").iterdir())) < len(list((tmp_path / "whole/commits").iterdir()))
    subprocess.run([*command, "--workers", "2"], check=True, capture_output=True)
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_a_workers_error_is_the_commands(run, capsys):
    assert run("--workers", "0") == 2
    assert "--workers 0: expected 1 or more" in capsys.readouterr().err
