"""The teacher's own cost, per record, over what an extraction would do."""

import json

from teacher_torch import live


def test_it_times_the_extractions_forward_passes(teacher, dataset, tmp_path, capsys):
    given = ["--task", "robot", "--teacher", str(teacher), "--dataset", str(dataset), "--device", "cpu"]
    given += ["--out", str(tmp_path / "none"), "--draws", "3", "--stride", "1"]
    assert live.main([*given, "--batch-size", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["records"] >= 2
    assert found["views"] == 2
    assert min(found["seconds"], found["gflop"]) > 0
    assert "image_tokens" in found["features"]
    assert not (tmp_path / "none").exists()
    assert live.main([*given, "--batch-size", "64"]) == 2
    assert "expected two batches or more" in capsys.readouterr().err
