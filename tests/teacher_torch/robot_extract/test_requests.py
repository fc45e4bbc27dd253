"""Teachers, embodiments, options and datasets that an extraction from a robot cannot use are said at once."""

import dataclasses
import json
import shutil

import pytest

from bridge import store
from teacher_torch import (
    extract,
    provenance,
    robot_inputs,
    robot_plan,
    robot_request,
    standin,
)
from teacher_torch.groot import checkpoint
from teacher_torch.groot import config as sizes


@pytest.mark.parametrize(
    ("measured", "message"),
    [({"success.mean": 0.9}, None), ({"success.mean": 0.2}, "success 20%"), ({}, "success never measured")],
)
def test_teacher_that_fails_is_said_loudly(run, teacher, tmp_path, capsys, measured, message):
    copy = shutil.copytree(teacher, tmp_path / "copy")
    provenance.write(copy, {"provenance": "random", "measured": measured})
    assert run("--teacher", str(copy), "--features", "state") == 0
    said = capsys.readouterr().out
    assert ("distillation from a teacher that fails its task" in said) == (message is not None)
    assert message is None or message in said
    assert store.open(tmp_path / "store").manifest.extraction["teacher_success"] == measured.get("success.mean")


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [
        ("state", lambda keys: {"arm": keys["hand"]}, "the statistics are another robot's: state keys"),
        (
            "action",
            lambda keys: {k: {n: v - 50 for n, v in s.items()} for k, s in keys.items()},
            "look like another robot's: action",
        ),
        ("transform", {"video_keys": ("wrist",)}, "video keys ['wrist'] are not in the dataset's"),
        ("transform", {"resize": 224}, "--resize 32"),
        ("transform", {"horizon": 16}, "chunks of 16 actions, the teacher makes 3"),
        ("transform", {"projector_id": 9}, "uses projector 9, the teacher has 2"),
    ],
)
def test_embodiment_that_does_not_fit(run, changed, monkeypatch, capsys, what, value, message):
    monkeypatch.setattr(checkpoint, "load", None)
    assert run("--metadata", str(changed(what, value))) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--features", "cells"), "no such features for this robot: cells; there are state, demonstration"),
        (("--draws", "1"), "2 draws for confidence"),
        (("--steps", "0"), "--steps 0"),
        (("--stride", "0"), "--stride 0: expected 1"),
        (("--seed", "-1"), "--seed -1"),
        (("--splits", "dev"), "no such splits: dev"),
        (("--limit", "0"), "at least one episode a split"),
        (("--dataset", "nowhere"), "python -m bridge.demonstrations"),
        (("--embodiment", "gr1"), "holds no embodiment 'gr1'"),
        (("--teacher", "nowhere"), "no checkpoint folder nowhere"),
    ],
)
def test_requests_that_cannot_be_met(run, capsys, options, message):
    assert run(*options) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


def test_truncated_video_is_found_before_the_model_is_loaded(run, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "load", None)
    copy = shutil.copytree(dataset, tmp_path / "copy")
    path = next(copy.glob("videos/*/*/episode_000001.mp4"))
    path.write_bytes(path.read_bytes()[:-400])
    assert run(data=copy) == 2
    assert "episode_000001.mp4" in capsys.readouterr().err


def test_empty_instruction_has_no_text_features(teacher, body):
    words = robot_request.request.load_tokenizer(None, robot_request.request.find_teacher(str(teacher), "robot"))
    plain = dataclasses.replace(body, transform=dataclasses.replace(body.transform, instruction_style="plain"))
    prompts = robot_plan.Words(robot_inputs.Preparer(sizes.from_folder(teacher), plain, words))
    with pytest.raises(robot_plan.PlanError, match="empty instruction"):
        prompts.span("")


def test_without_a_teacher_a_random_one_fits_the_robot(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(standin, "SHIPPED", tmp_path / "nothing")
    options = ("--task", "robot", "--dataset", str(dataset), "--limit", "1", "--splits", "test", "--draws", "2")
    assert extract.main([*options, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "RANDOM weights" in said
    assert "posttrain --task robot" in said
    reader = store.open(tmp_path / "runs/features/random-toy-1")
    assert reader.manifest.teacher.provenance == "random"
    assert reader.take("image_tokens", [0]).shape == (1, 128, 128)
    assert json.loads((tmp_path / "runs/features/random-toy-1/embodiment.json").read_text())["toybot"]


def test_teacher_of_another_task_is_refused(run, teacher, tmp_path, capsys):
    copy = shutil.copytree(teacher, tmp_path / "copy")
    provenance.write(copy, {"provenance": "random", "settings": {"task": "arc"}})
    assert run("--teacher", str(copy)) == 2
    assert (
        "was trained for --task arc, not robot: name another --teacher, such as standin-robot"
        in capsys.readouterr().err
    )
