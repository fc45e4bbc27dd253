"""The store of a robot: read in any order, its embodiment beside it, faults found by its own check."""

import shutil

import numpy as np
import pytest

from bridge import store, summary, validate


def test_reader_takes_records_in_any_order(finished):
    reader = store.open(finished)
    assert reader.take("image_tokens", [3, 0, 3]).shape == (3, 8, 32)
    assert np.array_equal(reader.take("image_tokens", [3, 0])[1], reader.record("image_tokens", 0))
    rows, starts = reader.frames("validation")
    records = reader.records("validation")
    assert np.array_equal(reader.read("frames", rows, 1)[:, 0], np.concatenate(reader.take("frames", records)))
    assert np.array_equal(
        reader.read("image_tokens", starts, 4).reshape(len(records), 8, 32), reader.take("image_tokens", records)
    )
    with pytest.raises(ValueError, match="use record"):
        reader.take("input_ids", np.arange(reader.manifest.size))


def test_embodiment_lies_beside_the_manifest(finished, body, tmp_path):
    stored = store.open(finished).embodiment()
    assert stored.transform == body.transform
    assert stored.dimensions("action") == body.dimensions("action")
    shutil.copytree(finished, tmp_path / "copy")
    path = tmp_path / "copy/embodiment.json"
    path.write_text(path.read_text().replace("0.95", "0.96"))
    with pytest.raises(store.StoreError, match=r"embodiment\.json: missing or not the one"):
        store.open(tmp_path / "copy").embodiment()


def test_store_passes_its_own_check(finished, tmp_path, capsys):
    assert validate.main([str(finished), "--picture", str(tmp_path / "seen.png")]) == 0
    said = capsys.readouterr().out
    assert "no faults" in said
    assert "train: 2 episodes, 8 records, 16 frames" in said
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("path", (0, 0, 0), 9, "does not join its noise"),
        ("saliency", 3, 9, "sums to"),
        ("confidence", 1, 1.5, "at most 1"),
        ("instruction_id", 0, 0, "is not the number of"),
        ("state", (0, 0), np.nan, "1 values are not finite"),
    ],
)
def test_check_finds_faulty_values(finished, tmp_path, monkeypatch, capsys, name, index, value, message):
    monkeypatch.setattr(summary, "draw", lambda *_: None)
    reader = store.open(finished)
    writer = store.create(tmp_path / "bad", reader.manifest)
    shutil.copy(finished / "embodiment.json", tmp_path / "bad")
    rows = reader.manifest.rows(0)
    arrays = {n: reader.read(n, np.array([0]), rows[f.axis])[0] for n, f in reader.manifest.features.items()}
    arrays[name][index] = value
    writer.write(0, arrays)
    assert validate.main([str(tmp_path / "bad")]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "not committed" not in line]
    assert any(line.startswith(f"FAULT group 0, {name}: ") and message in line for line in said)
