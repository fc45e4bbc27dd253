"""A small store with every kind of row: three tasks, two frames a demonstration, four image tokens a frame."""

import ml_dtypes
import numpy as np
import pytest

from bridge import manifest as manifests
from bridge import store
from bridge.manifest import Feature, Manifest

RECORDS = {
    "task": ["a", "a", "b", "b", "c"],
    "pair": [0, 0, 0, 0, 0],
    "kind": ["demonstration", "query"] * 2 + ["query"],
    "split": ["train", "train", "validation", "validation", "test"],
}
FRAMES = [2, 1, 2, 1, 1]


def make_manifest(**changes) -> Manifest:
    """Groups of two records; the last has one."""
    teacher = manifests.Teacher("toy", "0" * 64, "random", "none", 28, 2, 8, 1, 1, 1, False, 3)
    features = {
        "cells": Feature((30, 30), "uint8", "frame"),
        "image_tokens": Feature((8,), "bfloat16", "image"),
        "vision_attention": Feature((), "float32", "image"),
        "attention_mask": Feature((), "bool", "token"),
        "image_mask": Feature((), "bool", "token"),
        "layer_convergence": Feature((3,), "float32", "record"),
    }
    counts = {
        "record": [1] * 5,
        "frame": FRAMES,
        "image": [4 * n for n in FRAMES],
        "token": [11 * n + 1 for n in FRAMES],
    }
    given = {"features": features, "counts": counts, "records": RECORDS, "extraction": {"seed": 0}, "group_records": 2}
    return manifests.make("arc", teacher, **(given | changes))


def make_arrays(manifest: Manifest, group: int) -> dict[str, np.ndarray]:
    """Valid arrays for a group: attention sums to one a frame, masks fit the lengths."""
    rng = np.random.default_rng(group)
    rows = manifest.rows(group)
    attention = rng.random((rows["frame"], 4), np.float32) + 0.1
    lengths = [(4 * FRAMES[r], 11 * FRAMES[r] + 1) for r in range(*manifest.groups[group])]
    return {
        "cells": rng.integers(0, 10, (rows["frame"], 30, 30), np.uint8),
        "image_tokens": rng.standard_normal((rows["image"], 8), np.float32).astype(ml_dtypes.bfloat16),
        "vision_attention": (attention / attention.sum(axis=1, keepdims=True)).reshape(-1),
        "attention_mask": np.ones(rows["token"], bool),
        "image_mask": np.concatenate([np.arange(tokens) < images for images, tokens in lengths]),
        "layer_convergence": np.concatenate(
            [rng.random((rows["record"], 2), np.float32), np.ones((rows["record"], 1), np.float32)], 1
        ),
    }


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest()


@pytest.fixture
def folder(tmp_path, manifest) -> str:
    """A finished store in a local folder."""
    writer = store.create(tmp_path / "store", manifest)
    for group in writer.pending():
        writer.write(group, make_arrays(manifest, group))
    return tmp_path / "store"


@pytest.fixture
def arrays(manifest) -> list[dict[str, np.ndarray]]:
    return [make_arrays(manifest, group) for group in range(len(manifest.groups))]


@pytest.fixture
def altered_manifest():
    return make_manifest
