"""Bad observations are refused where they enter, with the axis, the type and the fix."""

import numpy as np
import pytest

from bridge.observation import Observation, ObservationError


def fields(**changes) -> dict:
    good = {
        "video": np.zeros((2, 1, 1, 4, 4, 3), np.uint8),
        "state": np.zeros((2, 1, 5), np.float32),
        "instruction": ("a", "b"),
        "embodiment": "arc",
    }
    return good | changes


def test_good_observation():
    observation = Observation(**fields(video=np.zeros((2, 3, 2, 4, 4, 3), np.uint8)))
    assert observation.batch == 2
    assert observation.images == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": np.zeros((2, 1, 4, 4, 3), np.uint8)}, r"six axes .* got 5 axes \[2, 1, 4, 4, 3\]: insert"),
        ({"video": np.zeros((2, 1, 1, 4, 4, 3), np.float32)}, r"uint8 .* got float32.*video \* 255"),
        ({"video": np.zeros((2, 1, 1, 3, 4, 4), np.uint8)}, "last axis must be 3 RGB"),
        ({"video": np.zeros((2, 0, 1, 4, 4, 3), np.uint8)}, "empty axis"),
        ({"video": [[[1]]]}, "numpy array, got list"),
        ({"state": np.zeros((2, 1, 5))}, "float32 numpy array, got float64"),
        ({"state": np.zeros((2, 5), np.float32)}, r"\[batch, 1, dimensions\].*got \[2, 5\]"),
        ({"state": np.zeros((3, 1, 5), np.float32)}, "batch 2"),
        ({"state": np.full((2, 1, 5), np.nan, np.float32)}, "NaN"),
        ({"instruction": ("a",)}, "2 strings"),
        ({"instruction": "ab"}, "tuple of strings, got 'ab'"),
        ({"instruction": ["a", "b"]}, "tuple of strings"),
        ({"embodiment": ""}, "tag"),
    ],
)
def test_bad_observation(changes, message):
    with pytest.raises(ObservationError, match=message):
        Observation(**fields(**changes))
