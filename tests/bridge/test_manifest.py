"""The manifest is byte-stable, its layout gives every group whole shards, and foreign or damaged ones are refused."""

import json

import numpy as np
import pytest

from bridge import manifest as manifests
from bridge.manifest import Feature, StoreError


def test_round_trip_is_byte_stable(manifest):
    text = manifest.to_json()
    again = manifests.from_json(text, "manifest.json")
    assert again == manifest
    assert again.to_json() == text
    assert again.digest == manifest.digest


def test_text_is_a_line_for_each_key_and_no_clock(manifest):
    lines = manifest.to_json().splitlines()
    assert len(lines) == 2 + len(json.loads(manifest.to_json()))
    assert "time" not in manifest.to_json()


def test_groups_own_whole_shards_on_every_axis(manifest):
    assert manifest.groups == ((0, 2), (2, 4), (4, 5))
    for name, axis in manifest.axes.items():
        for group, (first, last) in enumerate(manifest.groups):
            assert axis.starts[first] == group * axis.shard
            assert axis.starts[last - 1] + axis.counts[last - 1] == group * axis.shard + manifest.rows(group)[name]
            assert manifest.rows(group)[name] <= axis.shard


def test_groups_are_bounded_by_bytes(altered_manifest, monkeypatch):
    monkeypatch.setattr(manifests, "GROUP_BYTES", 4_000)
    groups = altered_manifest(group_records=512).groups
    assert groups[0] == (0, 2)
    assert groups[-1][1] == 5
    assert all(last > first for first, last in groups)


def test_full_size_record_fills_a_group_alone_or_nearly():
    """5,159 tokens of 2,048 channels: 42 MB a record, so six a group and shards of some 125 MB."""
    teacher = manifests.Teacher("x", "", "random", "", 224, 16, 2048, 12, 3, 3, True, 12)
    features = {
        "image_tokens": Feature((2048,), "bfloat16", "image"),
        "backbone_features": Feature((2048,), "bfloat16", "token"),
    }
    columns = {name: ["train"] * 20 for name in manifests.COLUMNS["arc"]}
    counts = {"image": [5120] * 20, "token": [5159] * 20}
    made = manifests.make("arc", teacher, features=features, counts=counts, records=columns, extraction={})
    assert teacher.tokens == 2560
    assert made.groups[0] == (0, 6)
    assert made.axes["token"].shard == 6 * 5159 + (-6 * 5159) % made.features["backbone_features"].chunk
    assert made.raw_bytes(0) == 6 * (5120 + 5159) * 4096


@pytest.mark.parametrize(
    ("row", "chunk"), [((2048,), 16), ((128,), 64), ((30, 30), 16), ((), 1024), ((4096,), 2), ((128, 128, 3), 1)]
)
def test_chunks_are_small_enough_to_read_one_frame(row, chunk):
    counts = {"record": [1]}
    features = {"x": Feature(row, "bfloat16", "record")}
    columns = {name: ["train"] for name in manifests.COLUMNS["arc"]}
    teacher = manifests.Teacher("x", "", "random", "", 224, 16, 2048, 12, 3, 3, True, 12)
    made = manifests.make("arc", teacher, features=features, counts=counts, records=columns, extraction={})
    assert made.features["x"].chunk == chunk


def edited(manifest, **changes) -> str:
    return json.dumps(json.loads(manifest.to_json()) | changes)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_foreign_schema_version(manifest, version):
    with pytest.raises(
        StoreError, match=r"here: schema version .*this code reads 1: use the release .* or extract again"
    ):
        manifests.from_json(edited(manifest, schema_version=version), "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"schema_version": 1', "not JSON"), ("[]", "schema version None"), ('{"schema_version": 1}', "KeyError")],
)
def test_damaged_text(text, message):
    with pytest.raises(StoreError, match=f"here: {message}"):
        manifests.from_json(text, "here")


def test_starts_that_do_not_follow(manifest):
    axes = json.loads(manifest.to_json())["axes"]
    axes["image"]["starts"][1] += 1
    with pytest.raises(StoreError, match="axis 'image': starts do not follow"):
        manifests.from_json(edited(manifest, axes=axes), "here")


def test_numpy_counts_are_plain_numbers_in_the_text(altered_manifest, manifest):
    counts = {name: np.array(axis.counts) for name, axis in manifest.axes.items()}
    assert altered_manifest(counts=counts).to_json() == manifest.to_json()
