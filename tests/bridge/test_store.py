"""The store loses nothing, counts only what is committed, writes the same bytes again, and names what is broken."""

import json
import pathlib
import resource

import numpy as np
import pytest

from bridge import commits, shards, store
from bridge.manifest import StoreError


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flip(path: pathlib.Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_every_feature_reads_back_bit_for_bit(folder, manifest, arrays):
    reader = store.open(folder)
    for name, feature in manifest.features.items():
        for group, (first, last) in enumerate(manifest.groups):
            rows = np.concatenate([reader.record(name, record) for record in range(first, last)])
            assert rows.dtype == feature.numpy_dtype
            assert rows.tobytes() == arrays[group][name].tobytes()


def test_many_ranges_in_one_read(folder, arrays):
    reader = store.open(folder)
    rows, starts = reader.frames("validation")
    tokens = reader.read("image_tokens", starts[::-1], 4)
    assert tokens.shape == (3, 4, 8)
    assert np.array_equal(tokens[::-1].reshape(12, 8), arrays[1]["image_tokens"])
    assert np.array_equal(reader.read("cells", rows, 1)[:, 0], arrays[1]["cells"])
    assert reader.read("image_tokens", starts[:0], 4).shape == (0, 4, 8)


def test_records_and_frames_of_a_split(folder, manifest):
    reader = store.open(folder)
    assert [reader.records(split).tolist() for split in ("train", "validation", "test")] == [[0, 1], [2, 3], [4]]
    shard = manifest.axes["image"].shard
    rows, starts = reader.frames("validation")
    assert (rows - manifest.axes["frame"].shard).tolist() == [0, 1, 2]
    assert (starts - shard).tolist() == [0, 4, 8]
    with pytest.raises(ValueError, match="split 'dev': expected one of train, validation, test"):
        reader.records("dev")


def test_a_group_is_one_file_a_feature(folder, manifest):
    names = set(files_of(folder))
    assert len(names) == 1 + len(manifest.features) * (1 + len(manifest.groups)) + len(manifest.groups)
    assert {
        "manifest.json",
        "image_tokens/zarr.json",
        "image_tokens/c/2/0",
        "cells/c/0/0/0",
        "commits/00001.json",
    } <= names


def test_holes_are_not_written(folder, manifest):
    """A shard holds 64 rows of 8 channels, a group 12; the file must not grow with the hole."""
    assert (folder / "cells/c/2/0/0").stat().st_size < 3_000


def test_the_same_store_has_the_same_bytes_in_any_order_and_after_writing_twice(tmp_path, folder, manifest, arrays):
    writer = store.create(tmp_path / "other", manifest)
    for group in (2, 0, 1, 0):
        writer.write(group, arrays[group])
    assert files_of(tmp_path / "other") == files_of(folder)


def test_two_machines_write_one_store(tmp_path, folder, manifest, arrays):
    for i in (1, 0):
        writer = store.create(tmp_path / "other", manifest)
        assert all(group % 2 == i for group in writer.pending((i, 2)))
        for group in writer.pending((i, 2)):
            writer.write(group, arrays[group])
    assert files_of(tmp_path / "other") == files_of(folder)


def test_memory_url_and_folder_hold_the_same_bytes(folder, manifest, arrays):
    url = "memory://test_store/"
    writer = store.create(url, manifest)
    for group in writer.pending():
        writer.write(group, arrays[group])
    files = shards.connect(url)
    assert {key.decode(): files.read(key).result().value for key in files.list().result()} == files_of(folder)
    assert store.open(url).records("train").tolist() == [0, 1]


def test_resume_writes_only_what_is_not_committed(folder, manifest):
    writer = store.create(folder, manifest)
    assert writer.pending() == []
    (folder / "commits/00001.json").unlink()
    (folder / "cells/c/2/0/0").unlink()
    assert writer.pending() == [1, 2]


def test_damaged_marker_does_not_count(folder, manifest):
    (folder / "commits/00001.json").write_text('{"group": 1')
    assert store.create(folder, manifest).pending() == [1]
    with pytest.raises(StoreError, match=r"commits/00001\.json: no valid commit marker.*uncommitted: 1;"):
        store.open(folder)


LEFTOVERS = [
    "image_tokens/c/0/0_1f.__lock",
    "manifest.json_ab.__lock",
    "commits/00000.json_2.__lock",
    "cells/c/0/0/0.__lock",
]


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_leftovers_of_a_killed_writer_vanish(tmp_path, folder, manifest, arrays, leftover):
    other = tmp_path / "other"
    path = other / leftover
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 100_000)
    writer = store.create(other, manifest)
    for group in writer.pending():
        writer.write(group, arrays[group])
    assert writer.pending() == []
    assert files_of(other) == files_of(folder)


def test_half_written_shard_is_replaced(tmp_path, folder, manifest, arrays):
    other = tmp_path / "other"
    writer = store.create(other, manifest)
    (other / "image_tokens/c/0").mkdir(parents=True)
    (other / "image_tokens/c/0/0").write_bytes(b"garbage" * 1000)
    for group in writer.pending():
        writer.write(group, arrays[group])
    assert files_of(other) == files_of(folder)


def test_another_extraction_is_refused(folder, altered_manifest):
    with pytest.raises(
        StoreError, match=r"holds another extraction \(extraction\.seed 0 there, 1 now\); choose another --out"
    ):
        store.create(folder, altered_manifest(extraction={"seed": 1}))


def test_first_creator_wins(tmp_path, manifest):
    store.create(tmp_path, manifest)
    files = shards.connect(tmp_path)
    assert shards.create(files, "manifest.json", b"other") == manifest.to_json().encode()


def test_wrong_arrays_are_refused(tmp_path, manifest, arrays):
    writer = store.create(tmp_path, manifest)
    with pytest.raises(ValueError, match="group 0: expected rows"):
        writer.write(0, arrays[2])
    with pytest.raises(ValueError, match=r"feature 'vision_attention': expected float32 \[1\.\.1024, \], got float64"):
        writer.write(0, arrays[0] | {"vision_attention": arrays[0]["vision_attention"].astype(np.float64)})
    assert not (tmp_path / "commits").exists()


def test_full_disk_commits_nothing_and_goes_on_afterwards(tmp_path, folder, manifest, arrays):
    other = tmp_path / "other"
    writer = store.create(other, manifest)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot be written .* make room or mend the permissions"):
            writer.write(0, arrays[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (other / "commits").exists()
    assert (other / "image_tokens/c/0/0").exists()
    for group in writer.pending():
        writer.write(group, arrays[group])
    assert writer.pending() == []
    assert files_of(other) == files_of(folder)


def test_no_store_here(tmp_path):
    with pytest.raises(StoreError, match=r"manifest\.json: not found.*python -m teacher_torch\.extract --out"):
        store.open(tmp_path / "nothing")
    with pytest.raises(StoreError, match="nothing://x: not a folder or a URL that tensorstore opens"):
        store.open("nothing://x")


def test_unfinished_store_needs_partial(folder):
    (folder / "commits/00001.json").unlink()
    with pytest.raises(StoreError, match=r"commits/00001\.json.*run the same extract command again.*partial=True"):
        store.open(folder)
    reader = store.open(folder, partial=True)
    assert reader.committed == [0, 2]
    assert reader.records("validation").tolist() == []
    assert reader.records("test").tolist() == [4]
    with pytest.raises(StoreError, match="not committed rows of one group"):
        reader.record("cells", 2)


def test_missing_shard_file(folder):
    (folder / "image_tokens/c/1/0").unlink()
    with pytest.raises(
        StoreError, match=r"image_tokens/c/1/0: the shard is missing; delete .*commits/00001\.json and run"
    ):
        store.open(folder)


@pytest.mark.parametrize("where", ["data", "index"])
def test_flipped_byte(folder, where):
    path = folder / "image_tokens/c/1/0"
    flip(path, 40 if where == "data" else path.stat().st_size - 10)
    reader = store.open(folder)
    with pytest.raises(StoreError, match=r"image_tokens/c/1/0: its bytes have changed; delete .*commits/00001\.json"):
        reader.record("image_tokens", 2)
    assert reader.record("image_tokens", 0).shape == (8, 8)


@pytest.mark.parametrize("size", [0, 3, 50])
def test_truncated_shard(folder, size):
    path = folder / "image_tokens/c/1/0"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StoreError, match=rf"image_tokens/c/1/0: {size} bytes, committed \d+ bytes; delete"):
        store.open(folder).record("image_tokens", 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_type": "float32"}, "data_type float32, the manifest says bfloat16"),
        ({"shape": [7, 8]}, r"shape \[7, 8\], the manifest says \[3072, 8\]"),
        ({"fill_value": 1.0}, "not as the manifest says"),
        (None, "not zarr metadata"),
    ],
)
def test_foreign_array(folder, change, message):
    path = folder / "image_tokens/zarr.json"
    path.write_text("{" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=rf"image_tokens/zarr\.json: {message}"):
        store.open(folder)


def test_missing_array_metadata_is_written_again(folder, manifest):
    before = files_of(folder)
    (folder / "cells/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"cells/zarr\.json: missing"):
        store.open(folder)
    store.create(folder, manifest)
    assert files_of(folder) == before


def test_reading_outside_the_committed_rows(folder, manifest):
    reader = store.open(folder)
    shard = manifest.axes["image"].shard
    for start in (-1, 10, shard - 1, 3 * shard):
        with pytest.raises(StoreError, match=r"are not committed rows of one group"):
            reader.read("image_tokens", np.array([0, start]), 4)
    with pytest.raises(StoreError, match=r"no feature 'saliency', it has .*--features saliency"):
        reader.record("saliency", 0)


def test_faults_are_found_without_decoding(folder):
    reader = store.open(folder)
    assert [reader.faults(group) for group in range(3)] == [[], [], []]
    flip(folder / "cells/c/2/0/0", 60)
    assert len(reader.faults(2)) == 1


def test_marker_of_another_manifest_does_not_count(folder, manifest):
    path = folder / commits.key(0)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest": "0" * 64}))
    assert store.create(folder, manifest).pending() == [0]


@pytest.mark.parametrize("lost", ["rows", "files"])
def test_a_marker_that_lacks_a_field_does_not_count(folder, manifest, lost):
    path = folder / "commits/00001.json"
    marker = json.loads(path.read_text())
    del marker[lost]
    path.write_text(json.dumps(marker))
    with pytest.raises(StoreError, match=r"commits/00001\.json: no valid commit marker"):
        store.open(folder)
    assert store.create(folder, manifest).pending() == [1]
