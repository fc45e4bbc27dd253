"""Extraction from a robot does not depend on interruption, shards or batch size, and loads no more than it needs."""

import pathlib

import numpy as np

from bridge import shards, store
from teacher_torch import (
    extract,
)
from teacher_torch.groot import checkpoint


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_interrupted_anywhere_gives_the_same_bytes(run, tmp_path, monkeypatch):
    assert run(out="whole") == 0
    write, calls = shards.write, []

    def failing(files, contents):
        calls.append(list(contents))
        if len(calls) in (4, 7):
            raise KeyboardInterrupt
        write(files, contents)

    monkeypatch.setattr(shards, "write", failing)
    assert run() == extract.INTERRUPTED
    assert run() == extract.INTERRUPTED
    (tmp_path / "store/embodiment.json").unlink()
    assert run() == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
    assert "image_features/zarr.json" not in files_of(tmp_path / "whole")
    assert "frames/zarr.json" in files_of(tmp_path / "whole")


def test_shards_write_one_store(run, tmp_path):
    assert run(out="whole") == 0
    assert run("--shard", "1/2") == 0
    assert run("--shard", "0/2") == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_batch_size_changes_no_value_but_rounding(run, tmp_path):
    names = ("--features", "actions", "fused_tokens", "text_features", "frames")
    assert run("--batch-size", "1", *names, out="one") == 0
    assert run("--batch-size", "4", *names, out="four") == 0
    one, four = (store.open(tmp_path / name) for name in ("one", "four"))
    for name in names[1:]:
        found = [reader.take(name, np.arange(reader.manifest.size)).astype(np.float32) for reader in (one, four)]
        np.testing.assert_allclose(*found, rtol=2**-7, atol=1e-4, err_msg=name)


def test_splits_and_limit(run, tmp_path):
    assert run("--splits", "train", "--limit", "1", "--features", "state", "--stride", "1") == 0
    records = store.open(tmp_path / "store").manifest.records
    assert set(records["episode"]) == {0}
    assert records["row"] == tuple(range(9))


def test_model_is_loaded_only_as_far_as_needed(run, monkeypatch):
    load, wanted = checkpoint.load, []

    def watched(folder, **options):
        wanted.append(options["features_only"])
        return load(folder, **options)

    monkeypatch.setattr(checkpoint, "load", watched)
    assert run("--features", "state", "frames", out="none") == 0
    assert run("--features", "image_tokens", out="without") == 0
    assert run("--features", "text_features", out="with") == 0
    assert wanted == [True, False]


def test_other_data_does_not_go_into_the_same_store(run, dataset, tmp_path, capsys, toy):
    assert run("--features", "state") == 0
    blank = toy.record(tmp_path / "again/toy", blank=True)
    assert run("--features", "state", data=blank) == 2
    assert "extraction.dataset_digest" in capsys.readouterr().err
