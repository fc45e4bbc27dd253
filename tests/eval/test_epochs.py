"""Epochs from stores and with the teacher live: what is counted, and the command as it is run."""

import json
import subprocess

import pytest

from bridge import compact
from eval import epochs


def test_speedup_counts_the_step_on_both_sides():
    cost = epochs.Cost(read=1.0, step=9.0, gflop=2.0, examples=1000)
    assert cost.epoch == pytest.approx(10.0)
    assert cost.speedup(191.0) == pytest.approx(20.0)
    assert epochs.counted(cost, views=2) == pytest.approx((2100 / 2 * 9 + 9) / 10)


def test_the_command_compares_stores_with_the_teacher(robots, tmp_path, capsys, monkeypatch):
    packed, asked = tmp_path / "compact", []
    assert compact.main([str(robots), "--out", str(packed)]) == 0

    def run(command, **_):
        asked.append(command[1:])
        return subprocess.CompletedProcess(command, 0, 'words\n{"seconds": 2.0, "views": 2}\n', "")

    monkeypatch.setattr(subprocess, "run", run)
    given = ["--preset", "tiny", "--batch", "4", "--batches", "1", "--teacher", "a", "b"]
    assert epochs.command(["--store", str(packed), *given]) == 0
    assert asked == [["-m", "teacher_torch.live", "a", "b"]]
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    cost = found["stores"][str(packed)]
    assert min(cost["read"], cost["step"], cost["gflop"], cost["counted_real"]) > 0
    assert found["teacher"]["seconds"] == 2.0


def test_a_teacher_that_fails_is_an_error(monkeypatch):
    failed = subprocess.CompletedProcess([], 2, "", "error: no dataset at there\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(epochs.StoreError, match="no dataset at there"):
        epochs.live(epochs.Options(stores=(), teacher=("--task", "robot")))
