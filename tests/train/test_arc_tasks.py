"""ARC tasks as training material: nothing held out is trained on, one canvas a batch, no pair shown with its answer."""

import numpy as np
import pytest

from bridge import arc, arc_content
from train import arc_tasks, data


@pytest.fixture(scope="module")
def train():
    return arc_tasks.Tasks("train")


@pytest.fixture(scope="module")
def validation():
    return arc_tasks.Tasks("validation")


def test_training_shares_no_pair_with_what_is_held_out(train, validation):
    held_out = [*validation.tasks, *arc.splits(1)["test"]]
    assert arc_content.overlaps(train.tasks, held_out) == []
    assert len(validation.tasks) == 40
    assert len(train.tasks) > 358, "ARC-2's training tasks are used too"
    assert len({arc_content.content_hash(task) for task in train.tasks}) == len(train.tasks), "each of them once"
    with pytest.raises(data.DataError, match=r"eval\.benchmark"):
        arc_tasks.Tasks("test")


def test_a_batch_has_one_canvas_that_holds_its_tasks(train):
    for first in range(0, 40, 4):
        read = train.read(np.arange(first, first + 4) * 977)
        side = read["video"].shape[3] // arc_tasks.PIXELS
        assert side in arc_tasks.CANVASES
        assert read["answers"].shape == (4, 4, side, side)
        inside = read["answers"] != arc.OUTSIDE
        assert (inside.any(axis=(2, 3)) == read["asked"]).all(), "a pair that is asked has an answer, others none"


def test_the_canvas_is_the_smallest_that_holds_the_task(train):
    for task, size in zip(train.tasks[:100], train.canvas[:100], strict=True):
        largest = max(max(g.shape) for p in arc_tasks.whole(task) for g in (p.input, p.output))
        smaller = [one for one in arc_tasks.CANVASES if one < size]
        assert largest <= size
        assert not smaller or largest > smaller[-1]


def test_a_task_is_seen_otherwise_each_time_and_alike_at_the_same_position(train):
    round_again = len(train.tasks) * len(train.alike[int(train.canvas[7])])
    at = np.array([7, 7 + round_again])
    one, again = train.read(at[:1]), train.read(at[:1])
    other = train.read(at[1:])
    np.testing.assert_array_equal(one["video"], again["video"])
    assert one["video"].shape == other["video"].shape
    assert (one["video"] != other["video"]).any()


def test_validation_is_as_published(validation):
    read = validation.read(np.arange(3))
    for row, task in enumerate(validation.tasks[:3]):
        for column, pair in enumerate(arc_tasks.whole(task)[:4]):
            height, width = pair.output.shape
            np.testing.assert_array_equal(read["answers"][row, column, :height, :width], pair.output)
    assert len(validation) == 40
