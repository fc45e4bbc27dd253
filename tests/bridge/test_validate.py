"""The store check finds every kind of fault, lists all of them, and says what is in a good store."""

import ml_dtypes
import numpy as np
import pytest

from bridge import store, summary, validate
from bridge.summary import Summary


@pytest.fixture
def build(tmp_path, altered_manifest, arrays):
    """(changes to group 1's arrays, changes to the manifest) -> folder of a finished store."""

    def make(changes=None, **altered):
        manifest = altered_manifest(**altered)
        writer = store.create(tmp_path / "store", manifest)
        for group in writer.pending():
            given = dict(arrays[group])
            for name, change in (changes or {}).items() if group == 1 else ():
                given[name] = change(given[name].copy())
            writer.write(group, given)
        return tmp_path / "store"

    return make


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing takes a second."""
    monkeypatch.setattr(summary, "draw", lambda *_: None)


def setting(index, value):
    def change(array):
        array[index] = value
        return array

    return change


def test_good_store(folder, capsys):
    assert validate.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert "no faults" in said
    assert "train: 1 tasks, 2 records, 3 frames" in said
    assert "toy (random)" in said
    assert (folder.parent / "store.png").read_bytes().startswith(b"\x89PNG")


def test_picture_goes_where_it_is_asked_for(folder, tmp_path):
    assert validate.main([str(folder), "--picture", str(tmp_path / "here.png")]) == 0
    assert (tmp_path / "here.png").exists()
    assert not (tmp_path / "store.png").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("image_tokens", setting((3, 2), np.nan), "image_tokens: 1 values are not finite"),
        ("cells", setting((0, 0, 0), 11), r"record 2 (b, demonstration 0): cell code 11, the largest is 10"),
        ("cells", setting((0, 0, 1), 10), "record 2 (b, demonstration 0): the coloured cells are not one rectangle"),
        ("vision_attention", setting(0, 0.9), "record 2 (b, demonstration 0): tiles sum to"),
        ("vision_attention", setting([0, 1], [-1, 1.5]), "record 2 (b, demonstration 0): tiles sum to"),
        ("attention_mask", setting(-1, False), "record 3 (b, query 0): 11 of 12 positions are real"),
        ("image_mask", setting(0, False), "record 2 (b, demonstration 0): marks 7 image positions, the record has 8"),
        ("layer_convergence", setting((1, 2), 0.5), "record 3 (b, query 0): cosines"),
    ],
)
def test_faulty_values(build, capsys, no_picture, name, change, message):
    assert validate.main([str(build({name: change}))]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAULT")]
    assert len(said) == 1
    assert message in said[0]
    assert said[0].startswith(f"FAULT group 1, {name}: ")


def test_all_faults_are_listed(folder, capsys, no_picture):
    (folder / "commits/00000.json").unlink()
    (folder / "image_tokens/c/1/0").unlink()
    path = folder / "cells/c/2/0/0"
    path.write_bytes(path.read_bytes()[:-1])
    assert validate.main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert "FAULT group 0: not committed" in said
    assert "image_tokens/c/1/0: missing, committed" in said
    assert "cells/c/2/0/0: " in said
    assert "3 faults" in said


def test_task_in_two_splits(build, capsys, no_picture, altered_manifest):
    records = dict(altered_manifest().records) | {"split": ("train", "test", "validation", "validation", "test")}
    assert validate.main([str(build(records=records))]) == 1
    assert "task a is in the splits ['test', 'train']" in capsys.readouterr().out


def test_no_store(tmp_path, capsys):
    assert validate.main([str(tmp_path)]) == 1
    assert "FAULT" in capsys.readouterr().out


def test_summary_equals_numpy():
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((1000, 4)) * [1, 5, 0, 1e-9] + [1e4, 0, 3, 0]).astype(np.float32)
    found = Summary.empty(4)
    for part in np.array_split(rows, 7):
        found.add(part)
    exact = rows.astype(np.float64)
    assert found.count == 1000
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.squares / 1000, exact.var(axis=0), rtol=1e-9, atol=1e-24)
    assert found.std == pytest.approx(exact.std(), rel=1e-9)
    assert (found.least == rows.min(axis=0)).all()
    assert (found.most == rows.max(axis=0)).all()
    assert found.dead == 0.5


def test_histogram_holds_nearly_every_value():
    rng = np.random.default_rng(0)
    found = Summary.empty(2)
    found.add(rng.standard_normal((50_000, 2)).astype(ml_dtypes.bfloat16))
    edges, shares = found.histogram()
    assert 0.999 < shares.sum() <= 1
    assert -4.5 < edges[0] < -3
    assert 3 < edges[-1] < 4.5


def test_histogram_of_one_value():
    found = Summary.empty(1)
    found.add(np.full((10, 1), 2.0, np.float32))
    edges, shares = found.histogram()
    assert edges[0] <= 2 < edges[-1]
    assert shares.sum() == 1
