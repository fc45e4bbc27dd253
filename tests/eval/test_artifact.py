"""The folder of an artifact: whole or not there, and nobody else's folder is touched."""

import json
import os

import numpy as np
import pytest

from eval import artifact, card

META = {
    "format": 2, "modules": ["vision"], "preset": "tiny", "embodiment": "arc", "dtype": "float32", "platforms": ["cpu"],
    "actions": {}, "state": {}, "tokenizer": None, "video": [1, 1, 8, 8, 3], "views": ["grid"], "parameters": 3,
    "teacher": {"id": "t", "provenance": "random", "licence": "none", "digest": "d" * 64}, "run": {"seed": 0},
    "averaged": True, "digest": "e" * 64,
    "atp": {"base": {"vision": 1.0}, "step": {"vision": 2.0}, "max_steps": {"vision": 2}, "full": 5.0},
}  # fmt: skip
WEIGHTS = {"a": np.zeros(3, np.float32)}


def write(folder, program=b"one"):
    return artifact.write(folder, META, program=program, weights=WEIGHTS)


def test_an_older_artifact_is_replaced_whole(tmp_path):
    folder = tmp_path / "deep" / "it"
    write(folder)
    (folder / "model.onnx").write_text("of the older one")
    write(folder, b"two")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "meta.json",
        "program",
        "weights.safetensors",
    ]
    assert (folder / "program").read_bytes() == b"two"
    assert [path.name for path in folder.parent.iterdir()] == ["it"]


@pytest.mark.parametrize("killed_at", range(1, 3))
def test_a_kill_leaves_no_half_artifact(tmp_path, monkeypatch, killed_at):
    folder, real, calls = tmp_path / "it", os.rename, []
    write(folder)

    def rename(*paths):
        calls.append(paths)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        real(*paths)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write(folder, b"two")
    assert not folder.exists() or (folder / "program").read_bytes() == b"one"
    monkeypatch.undo()
    write(folder, b"three")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "mine"}'])
def test_a_folder_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(artifact.FolderError, match="another --out"):
        write(tmp_path)
    assert (tmp_path / "meta.json").read_text() == content


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "it").write_text("mine")
    with pytest.raises(artifact.FolderError):
        artifact.check(tmp_path / "it")


def test_notes_reach_meta_and_card_and_keep_the_checksums(tmp_path):
    before = write(tmp_path / "it")
    meta = artifact.note(
        tmp_path / "it", {"measured": {"device": "abacus", "ms_base": 3.0, "ms_per_step": {"vision": 4.5}}}
    )
    assert json.loads((tmp_path / "it" / "meta.json").read_text()) == meta
    assert meta["files"] == before["files"]
    assert "abacus" in (tmp_path / "it" / "README.md").read_text()
    assert "| vision | 1 | 2 | 2 | 4.50 |" in (tmp_path / "it" / "README.md").read_text()


@pytest.mark.parametrize("provenance", ["real", "stand-in", "random", "unheard-of"])
def test_the_card_says_what_the_teachers_origin_means(provenance):
    teacher = META["teacher"] | {"provenance": provenance, "licence": "L"}
    told = card.text(META | {"teacher": teacher}, 12)
    assert {"real": "non-commercial", "stand-in": "Apache-2.0", "random": "nothing else"}.get(
        provenance, "licence: L"
    ) in told
    assert "Measured" not in told
