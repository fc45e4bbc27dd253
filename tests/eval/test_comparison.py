"""Students against a robot's store: which observations are read, which pictures are drawn."""

import numpy as np

from bridge import store
from eval import comparison, places, report

CONTEXT = report.Context("stand-in", "none", "standin", 1000, "cpu", "abc", "command")


def test_without_the_reported_split_validation_is_read(toys):
    assert comparison.seen(store.open(toys), "test", "standard").split == "validation"
    assert comparison.seen(store.open(toys), "train", "quick").split == "train"


def test_steps_are_drawn_where_they_were_measured():
    rows = [
        report.Row(
            f"metaworld.student.action_mse_step_{k}.validation", 0.1 / (k + 1), "x", CONTEXT, ci_low=0, ci_high=1
        )
        for k in range(3)
    ]
    (picture,) = comparison.steps(rows)
    assert picture.png.startswith(b"\x89PNG")
    assert comparison.steps([]) == []


def test_nothing_is_drawn_without_a_label_in_sight(toys):
    seen = comparison.seen(store.open(toys), "validation", "quick")
    nowhere = np.full((12, 2, 2, 2), np.nan, np.float32)
    assert comparison.located(None, seen) == []
    assert comparison.located(places.Places(nowhere, nowhere, seen.episode, seen.size), seen) == []
