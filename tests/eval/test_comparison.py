"""Students against a robot's store: which observations are read, which pictures are drawn."""

import numpy as np

from bridge import metaworld_tasks, store
from eval import comparison, observations, places, report

CONTEXT = report.Context("stand-in", "none", "standin", 1000, "cpu", "abc", "command")


def test_without_the_reported_split_validation_is_read(toys):
    assert comparison.seen(store.open(toys), "test", "standard").split == "validation"
    assert comparison.seen(store.open(toys), "train", "quick").split == "train"


def test_bars_need_the_whole_split_or_many_observations_and_in_the_simulator_eight_tasks(robots, toys):
    whole, part = (observations.Observations(store.open(toys), "validation", most=most) for most in (None, 4))
    assert comparison.needs(whole) == ""
    assert comparison.needs(part) == ">= 1,024 observations (or the whole split)"
    whole = observations.Observations(store.open(robots), "validation")
    assert comparison.needs(whole) == ">= 8 tasks in the store"
    whole.said = [task.phrasings[0] for task in metaworld_tasks.TASKS.values()][:8]
    assert comparison.needs(whole) == ""


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
