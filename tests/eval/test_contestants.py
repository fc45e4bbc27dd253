"""Who is comparable with whom."""

import dataclasses
import json
import shutil

import pytest

from bridge import store
from eval import contestants, runs
from train import config, record

pytestmark = pytest.mark.usefixtures("quickly")
ALONE = dict.fromkeys(
    ("tokens", "cosine", "attention", "rise", "fused", "fused_cosine", "text", "actions", "imitation"), 0.0
)


@pytest.fixture(scope="module")
def run(make_acting):
    return runs.load([make_acting()])[0]


def taught(run, **losses):
    changed = dataclasses.replace(run.record.config, loss=config.LossWeights(**losses))
    return dataclasses.replace(run, record=dataclasses.replace(run.record, config=changed))


def test_a_control_on_demonstrations_alone_had_nothing_of_the_teacher(run):
    cast = contestants.Cast({"student": [run], "demonstrations": [taught(run, **ALONE)]})
    assert contestants.taught_by_teacher(cast.runs["demonstrations"][0]) == []
    assert cast.uneven("demonstrations") == ""


def test_one_that_had_is_named_with_what_it_had(run):
    cast = contestants.Cast({"student": [run], "demonstrations": [taught(run, **ALONE | {"text": 0.1})]})
    assert "it had the teacher's text" in cast.uneven("demonstrations")


def test_other_steps_are_named(run):
    longer = dataclasses.replace(run, record=dataclasses.replace(run.record, steps=run.record.steps + 1))
    assert "other steps than the student" in contestants.Cast({"student": [run], "tokens": [longer]}).uneven("tokens")


def test_a_run_of_another_objective_is_named(run):
    old = dataclasses.replace(run, record=dataclasses.replace(run.record, objective=1))
    assert "other recipe than the student" in contestants.Cast({"student": [run], "tokens": [old]}).uneven("tokens")


def test_a_loss_of_another_weight_is_named_and_one_that_is_left_out_is_not(run):
    more = contestants.Cast({"student": [run], "demonstrations": [taught(run, **ALONE | {"demonstration": 5.0})]})
    assert "other weights" in more.uneven("demonstrations")
    assert contestants.Cast({"student": [run], "x": [taught(run, actions=0.0)]}).uneven("x") == ""


def test_fewer_seeds_are_compared_with_the_students_of_the_same_seeds(run):
    def seeded(seed):
        config = dataclasses.replace(run.record.config, seed=seed)
        return dataclasses.replace(run, record=dataclasses.replace(run.record, config=config))

    cast = contestants.Cast({"student": [seeded(s) for s in (0, 1, 2)], "x": [seeded(1)], "y": [seeded(7)]})
    assert cast.shared("x") == (1,)
    assert cast.uneven("x") == ""
    assert "other seeds" in cast.uneven("y")


def test_a_run_that_must_be_trained_again_is_refused_before_anybody_acts(make_acting, robots, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(make_acting(), old)
    kept = json.loads((old / record.FILE).read_text())
    (old / record.FILE).write_text(json.dumps(kept | {"objective": 1}))
    with pytest.raises(runs.RunError, match="train it again"):
        contestants.load([old], (), store.open(robots), str(robots))
    assert contestants.load([make_acting()], (), store.open(robots), str(robots)).students
