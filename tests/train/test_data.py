"""The loader: a pure function of the step, exact, and never the test split."""

import itertools

import numpy as np
import pytest

from bridge import arc, store
from train import data, seed_tokens

FEATURES = ("image_tokens", "vision_attention")


@pytest.fixture(scope="module")
def reader(stored):
    return store.open(stored)


@pytest.fixture(scope="module")
def frames(reader):
    return data.Frames(reader, "train", features=FEATURES, cache_bytes=1e9)


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_a_batch_has_the_shapes_of_the_contract(frames):
    batch = data.training(frames, batch=4, seed=0)[0]
    assert {name: (str(value.dtype), value.shape) for name, value in batch.items()} == {
        "video": ("uint8", (4, 1, 1, 450, 450, 3)),
        "image_tokens": ("bfloat16", (4, 1, 9, 8)),
        "vision_attention": ("float32", (4, 1, 9)),
        "valid": ("bool", (4,)),
    }


def test_reading_ahead_from_any_step_gives_the_batches_of_those_steps(frames):
    batches = data.training(frames, batch=7, seed=3)
    for start in (0, 5, 40):
        ahead = data.read_ahead(batches, start=start, threads=2, prefetch=3)
        for step, batch in enumerate(itertools.islice(ahead, 3), start):
            same(batch, batches[step])


def test_an_epoch_sees_every_frame_once_and_the_next_in_another_order(frames):
    order = data.order(len(frames), batch=1, seed=0)
    epochs = np.array([order[step][0] for step in range(2 * len(frames))]).reshape(2, -1)
    assert (np.sort(epochs) == np.arange(len(frames))).all()
    assert (epochs[0] != epochs[1]).any()


def test_another_seed_is_another_order(frames):
    a, b = (data.order(len(frames), batch=16, seed=seed)[0] for seed in (0, 1))
    assert (a != b).any()


def test_the_clock_tells_waiting_from_reading(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(data.time, "perf_counter", lambda: now[0])
    clock = data.Clock()
    for _ in range(4):
        with clock.reading():
            now[0] += 0.5
    with clock.waiting():
        now[0] += 2.0
    assert clock.read(1.0, threads=2) == {"clock/loader_wait": 0.5, "clock/loader_ahead": 4.0}
    clock.reset()
    assert clock.read(1.0, threads=2)["clock/loader_ahead"] == 0.0


def test_caching_changes_nothing(reader, frames):
    uncached = data.Frames(reader, "train", features=FEATURES, cache_bytes=0.0)
    assert frames.cached
    assert not uncached.cached
    same(uncached.read(np.array([3, 0, 11])), frames.read(np.array([3, 0, 11])))


def test_a_frame_and_its_features_belong_together(reader, frames):
    record = int(reader.records("train")[2])
    at = int(
        np.flatnonzero(np.repeat(reader.records("train"), reader.counts["frame"][reader.records("train")]) == record)[0]
    )
    batch = frames.read(np.array([at, at + 1]))
    np.testing.assert_array_equal(arc.read_cells(batch["video"][:, 0, 0], data.PIXELS), reader.record("cells", record))
    np.testing.assert_array_equal(batch["image_tokens"].reshape(18, 8), reader.record("image_tokens", record))


@pytest.mark.parametrize("split", ["test", "everything"])
def test_no_other_split_is_ever_read(reader, split):
    with pytest.raises(data.DataError, match=r"never reads split .*only eval\.benchmark"):
        data.Frames(reader, split, features=FEATURES, cache_bytes=0.0)


def test_a_store_of_arc_2_never_teaches_what_arc_1_holds_out(make_store, tmp_path):
    reader = store.open(make_store(tmp_path, version=2))
    held_out = {task.id for split in ("validation", "test") for task in arc.splits(1)[split]}
    names, there = reader.manifest.records["task"], reader.records("train")
    hidden, free = ([i for i in there if (names[i] in held_out) == kept] for kept in (True, False))
    assert {names[i] for i in hidden} & {task.id for task in arc.splits(1)["test"]}, "else there is nothing to hold out"
    cells = lambda chosen: [each.tobytes() for i in chosen for each in reader.record("cells", int(i))]  # noqa: E731
    frames = data.Frames(reader, "train", features=FEATURES, cache_bytes=1e9)
    taught = [each.tobytes() for each in frames.fetch("cells", np.arange(len(frames)))]
    assert not set(taught) & set(cells(hidden))
    assert taught == cells(free)
    for split in ("train", "validation"):  # validation decides which checkpoint is reported
        records = np.repeat(reader.records(split), reader.counts["frame"][reader.records(split)])
        assert not {names[i] for i in records[data.trainable(reader, split)]} & held_out
        assert not {task.id for task in arc.trainable(2, 1, split)} & held_out
    original = seed_tokens.asked(reader, "train", leave_one_out=True)
    assert {one.task for one in original} <= {names[i] for i in free}


def test_a_missing_feature_is_named(reader):
    with pytest.raises(data.DataError, match=r"\['saliency'\].*--features"):
        data.Frames(reader, "train", features=("saliency",), cache_bytes=0.0)


def test_validation_covers_the_split_once_and_marks_the_padding(reader):
    frames = data.Frames(reader, "validation", features=FEATURES, cache_bytes=1e9)
    batches = list(data.validation(frames, batch=5, limit=10_000))
    tokens = np.concatenate([batch["image_tokens"][batch["valid"]] for batch in batches])
    np.testing.assert_array_equal(tokens[:, 0], frames.fetch("image_tokens", np.arange(len(frames))))
    assert {len(batch["valid"]) for batch in batches} == {5}


def test_a_limited_validation_is_spread_over_the_split(reader):
    frames = data.Frames(reader, "validation", features=FEATURES, cache_bytes=1e9)
    (batch,) = data.validation(frames, batch=4, limit=2)
    assert batch["valid"].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(
        batch["image_tokens"][1, 0], frames.fetch("image_tokens", np.array([len(frames) - 1]))[0]
    )
