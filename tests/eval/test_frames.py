"""Frames come with the right task, tokens and picture, and a sample keeps whole tasks."""

import numpy as np
import pytest

from bridge import arc
from eval.frames import Frames, SplitError


def test_every_frame_has_its_own_tokens_and_picture(reader):
    frames = Frames(reader, "test")
    batch = frames.read(np.arange(len(frames)))
    position = 0
    for record in reader.records("test"):
        cells, tokens = reader.record("cells", record), reader.record("image_tokens", record)
        for frame, part in zip(cells, np.split(tokens.astype(np.float32), len(cells)), strict=True):
            assert np.array_equal(batch.image[position], arc.render(frame, pixels=15))
            assert np.array_equal(batch.tokens[position], part)
            assert frames.tasks[batch.task[position]] == reader.manifest.records["task"][record]
            position += 1
    assert position == len(frames)


def test_attention_sums_to_one_per_tile(reader):
    batch = Frames(reader, "test").read(np.arange(3))
    assert batch.attention.shape == (3, 1, 9)
    assert batch.attention.sum(-1) == pytest.approx(np.ones((3, 1)), abs=1e-5)


def test_inside_are_the_tokens_that_see_the_grid(reader):
    batch = Frames(reader, "test").read(np.arange(4))
    white = (batch.image == 255).all(-1).reshape(4, 3, 150, 3, 150).all((2, 4)).reshape(4, 9)
    assert np.array_equal(batch.inside, ~white)


def test_iterating_gives_every_frame_once_and_again(reader, monkeypatch):
    frames = Frames(reader, "train")
    monkeypatch.setattr("eval.frames.LARGEST_BATCH", 7)
    sizes = [len(batch.task) for batch in frames]
    assert sum(sizes) == len(frames)
    assert max(sizes) == 7
    assert [len(batch.task) for batch in frames] == sizes


def test_a_sample_of_tasks_keeps_all_their_frames(reader):
    whole = Frames(reader, "train")
    part = whole.limited(tasks=2, seed=1)
    assert len(part.tasks) == 2
    for index, name in enumerate(part.tasks):
        mine, theirs = np.sum(part.task == index), np.sum(whole.tasks[whole.task] == name)
        assert mine == theirs
    assert part.tasks.tolist() == whole.limited(tasks=2, seed=1).tasks.tolist()


def test_a_sample_of_frames_and_a_limit_above_the_size(reader):
    whole = Frames(reader, "train")
    assert len(whole.limited(frames=5)) == 5
    assert len(whole.limited(frames=10**6, tasks=10**6)) == len(whole)


def test_describe_names_task_kind_pair_and_place(reader):
    frames = Frames(reader, "test")
    described = [frames.describe(i) for i in range(3)]
    assert [d["frame"] for d in described] == [0, 1, 0]
    assert {d["kind"] for d in described} == {"demonstration"}
    assert described[0]["task"] == reader.manifest.records["task"][reader.records("test")[0]]


def test_a_missing_feature_and_an_empty_split_name_the_command(reader, monkeypatch):
    monkeypatch.setattr("eval.frames.FEATURES", ("cells", "saliency"))
    with pytest.raises(SplitError, match="--features cells saliency"):
        Frames(reader, "test")
    monkeypatch.undo()
    monkeypatch.setattr(reader, "records", lambda split: np.zeros(0, int))
    with pytest.raises(SplitError, match="--split test"):
        Frames(reader, "test")
