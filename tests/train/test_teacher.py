"""The teacher that labels the rounds, in another process: asked before anything is trained."""

import dataclasses
import json
import pathlib
import subprocess
import types

import pytest

from bridge import embodiment as embodiments
from bridge import store, stored_embodiment
from train import config, main, rounds, teacher

SHIPPED = pathlib.Path(teacher.__file__).parents[1] / "teacher_torch/standins/standin-robot"
DIGEST = "d" * 64


@pytest.fixture(scope="module")
def source(robot_stored):
    """A manifest that names the shipped stand-in, at a digest of its own."""
    known = store.open(robot_stored).manifest
    made = dataclasses.replace(known.teacher, id="standin-robot", digest=DIGEST)
    return dataclasses.replace(known, teacher=made, extraction={"draws": 8, "steps": 4, "dtype": "float32"})


@pytest.fixture
def answers(monkeypatch):
    """(returncode, stdout, stderr) -> the commands that were run, each answered so."""

    def make(code=0, said="", blamed=""):
        asked = []

        def run(command, **_):
            asked.append(command)
            return subprocess.CompletedProcess(command, code, said, blamed)

        monkeypatch.setattr(teacher.subprocess, "run", run)
        return asked

    return make


def test_the_teacher_of_the_store_is_asked_for_unless_another_is_named(answers, source):
    asked = answers(said=f"fetching\n{json.dumps({'digest': DIGEST})}\n")
    teacher.check(config.Rounds(), source)
    teacher.check(config.Rounds(teacher="mine", teacher_tokenizer="packaged", teacher_device="cuda"), source)
    assert [command[3] for command in asked] == ["standin-robot", "mine"]
    assert asked[1][-4:] == ["--tokenizer", "packaged", "--device", "cuda"]


def test_another_teacher_than_the_stores_is_refused(answers, source):
    answers(said=json.dumps({"digest": "e" * 64}))
    with pytest.raises(config.ConfigError, match=r"mine is not the teacher of --store.*standin-robot \(dddddddddddd\)"):
        teacher.check(config.Rounds(teacher="mine"), source)


@pytest.mark.parametrize(
    ("blamed", "message"),
    [
        ("error: no checkpoint folder mine\n", r"\(no checkpoint folder mine\); name with --teacher a"),
        ("Traceback\nModuleNotFoundError: No module named 'torch'\n", r"pip install 'sage-distill\[teacher\]'"),
        ("", "no reason given"),
    ],
)
def test_a_teacher_that_cannot_label_is_said_with_its_fix(answers, source, blamed, message):
    answers(code=2, blamed=blamed)
    with pytest.raises(config.ConfigError, match=message):
        teacher.check(config.Rounds(), source)


def test_the_teacher_labels_every_row_as_it_labelled_the_base_store(source, tmp_path):
    command = teacher.labels(config.Rounds(teacher_device="cpu"), source, tmp_path)
    assert command[1:5] == ["-m", "teacher_torch.extract", "--task", "robot"]
    own = str(tmp_path / "dataset/meta/metadata.json")
    wanted = {"--stride": "1", "--draws": "8", "--steps": "4", "--dtype": "float32", "--metadata": own}
    for flag, value in (wanted | {"--teacher": "standin-robot", "--device": "cpu"}).items():
        assert command[command.index(flag) + 1] == value


def test_an_embodiment_that_was_read_and_written_is_the_same_bytes(tmp_path):
    """What labels a visited dataset went through two run folders, and its digest must be the base store's."""
    content = stored_embodiment.text(embodiments.load(SHIPPED))
    (tmp_path / "embodiment.json").write_bytes(content)
    assert stored_embodiment.text(embodiments.load(tmp_path / "embodiment.json")) == content


def test_nothing_is_trained_before_the_real_command_knows_the_teacher(robot_stored, tmp_path, monkeypatch, capsys):
    """The store is a made-up teacher's, so the shipped stand-in is refused."""
    body = types.SimpleNamespace(tag=rounds.demonstrations.TAG)
    real = store.open(robot_stored)
    held = types.SimpleNamespace(manifest=real.manifest, embodiment=lambda: body, exact=real.exact)
    monkeypatch.setattr(rounds.store, "open", lambda url: held)
    out = tmp_path / "run"
    given = ["--stage", "end-to-end", "--store", str(robot_stored), "--out", str(out), "--rounds", "1"]
    assert main.main([*given, "--teacher", "standin-robot", "--teacher-device", "cpu"]) == 2
    assert "--teacher standin-robot is not the teacher of --store: its digest is" in capsys.readouterr().err
    assert not out.exists()
