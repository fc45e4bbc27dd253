"""What a run keeps of another run that it starts from, and when it may not start from it."""

import json

import numpy as np
import pytest

from bridge import store
from train import config, warm

BODY = {"statistics": {"state": {"hand": {"mean": [0.0]}}}, "transform": {"crop": 0.95}}


@pytest.fixture
def reader(robot_stored):
    return store.open(robot_stored)


@pytest.fixture
def begun(tmp_path):
    """(embodiment's content | None) -> a run folder with it."""

    def make(content):
        (tmp_path / "config.json").write_text("{}")
        if content is not None:
            (tmp_path / warm.EMBODIMENT).write_text(json.dumps(content))
        return str(tmp_path)

    return make


@pytest.mark.parametrize("trains", [None, "vision", "language", "control"])
def test_the_same_robot_goes_on_in_every_stage(reader, begun, trains):
    warm.check(begun({"dot": {"statistics": {}}}), reader, trains=trains)


@pytest.mark.parametrize("trains", [None, "vision", "language"])
def test_another_robot_is_refused_but_by_a_control_of_its_own(reader, begun, trains):
    run = begun({"dot": BODY})
    with pytest.raises(config.ConfigError, match=r"dot: other statistics; dot: other transform.*--metadata .*embodi"):
        warm.check(run, reader, trains=trains)
    warm.check(run, reader, trains="control")


def test_a_run_for_no_robot_is_refused(reader, begun, monkeypatch):
    monkeypatch.setattr(warm.record, "read", lambda folder: None)
    with pytest.raises(config.ConfigError, match="for no robot: start without --init"):
        warm.check(begun(None), reader, trains="control")


def test_puzzles_have_no_robot(stored, begun):
    warm.check(begun(None), store.open(stored), trains="vision")


@pytest.mark.parametrize("part", ["statistics", "transform"])
def test_every_part_of_an_embodiment_counts(part):
    assert warm.differences({"arm": BODY}, {"arm": BODY}) == []
    assert warm.differences({"arm": BODY}, {"arm": BODY | {part: {}}}) == [f"arm: other {part}"]
    assert warm.differences({"arm": BODY}, {"leg": BODY}) == ["arm -> leg"]


def test_constants_are_kept_but_the_limits_hold_both_datasets():
    at = lambda low, high: {"low": np.array(low), "high": np.array(high)}  # noqa: E731
    measured = {("vision", "mean"): np.zeros(1)} | {("control", name): v for name, v in at([-1, -3], [2, 4]).items()}
    frozen = {"control": at([-2, -1], [1, 5])}
    assert warm.constants(frozen, measured, "", trains=None) == measured
    assert list(warm.constants(frozen, measured, "run", trains="vision")) == [("vision", "mean")]
    kept = warm.constants(frozen, measured, "run", trains=None)
    assert {path: value.tolist() for path, value in kept.items()} == {
        ("control", "low"): [-2, -3],
        ("control", "high"): [2, 5],
    }
