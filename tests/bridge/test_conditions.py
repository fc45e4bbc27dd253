"""Conditions: the words that episodes are asked with, and that grey is all that a blind policy sees."""

import dataclasses

import pytest

from bridge import conditions, metaworld_tasks, scene, simulator

PAIR = metaworld_tasks.LOOK_ALIKE


def test_swapped_asks_for_the_other_task_of_the_pair_and_leaves_the_rest_out():
    jobs = conditions.jobs("swapped", ["drawer-open", *PAIR], range(20))
    assert {job.task for job in jobs} == set(PAIR)
    for job in jobs:
        (other,) = set(PAIR) - {job.task}
        assert job.instruction == metaworld_tasks.instruction(other, job.seed)
    with pytest.raises(ValueError, match="not drawer-open"):
        conditions.instruction("swapped", "drawer-open", 0)


def test_held_out_phrasings_are_never_trained_on():
    for job in conditions.jobs("held-out", list(metaworld_tasks.TASKS), range(8)):
        task = metaworld_tasks.find(job.task)
        assert job.instruction in task.held_out
        assert job.instruction not in task.phrasings


@pytest.mark.parametrize("name", ["normal", "blind", "noise", "dropped", "light"])
def test_other_conditions_keep_the_words(name):
    (job,) = conditions.jobs(name, ["drawer-open"], [7])
    assert job == simulator.Job("drawer-open", 7, metaworld_tasks.instruction("drawer-open", 7))


def test_each_disturbance_disturbs_one_thing():
    plain = dataclasses.asdict(simulator.Conditions())
    changed = {
        name: {key for key, value in dataclasses.asdict(conditions.cameras(name)).items() if value != plain[key]}
        for name in conditions.NAMES
    }
    kept = {key: set() for key in ("normal", "held-out", "swapped")}
    assert changed == kept | {"blind": {"blind"}, "noise": {"camera_noise"}, "dropped": {"dropped"}, "light": {"light"}}


def test_an_unknown_condition_lists_those_there_are():
    with pytest.raises(ValueError, match="held-out"):
        conditions.cameras("dark")


def test_rules_tell_conditions_apart(monkeypatch):
    found = {name: conditions.rules(name) for name in ("normal", "blind", "noise", "dropped", "light")}
    assert len(set(found.values())) == 5
    monkeypatch.setattr(scene, "REPEAT", 3)
    assert conditions.rules("normal") != found["normal"]
