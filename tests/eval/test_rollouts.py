"""Filling a ledger: what is there is never run again, whatever killed the benchmark; conditions reach the policy."""

import json

import numpy as np
import pytest

from bridge import conditions, metaworld_tasks, outcomes, simulator
from eval import rollouts

TASKS = ("drawer-open", *metaworld_tasks.LOOK_ALIKE)
JOBS = conditions.jobs("normal", TASKS, range(3))


class Kill(BaseException):
    """As a signal would."""


class Policy:
    """Says zeros and notes what it was asked."""

    def __init__(self):
        self.queries = []

    def __call__(self, query):
        self.queries.append(query)
        return np.zeros((len(query.seed), 8, 4))


def fill(path, fake_lanes, policy, *, condition="normal", tick=lambda *_: None, jobs=None):
    contestant = rollouts.Contestant("student", policy, "d0", 0)
    with rollouts.Farm(fake_lanes) as farm:
        jobs = JOBS if jobs is None else jobs
        rollouts.fill(outcomes.Ledger(path), contestant, condition, jobs, farm=farm, tick=tick)
    return path.read_text()


def test_every_job_is_one_line(tmp_path, fake_lanes):
    lines = [json.loads(line) for line in fill(tmp_path / "e", fake_lanes, Policy()).splitlines()]
    assert [(line["task"], line["goal_seed"], line["instruction"]) for line in lines] == [
        (job.task, job.seed, job.instruction) for job in JOBS
    ]
    assert [line["success"] for line in lines] == [job.seed % 2 == 0 for job in JOBS]


@pytest.mark.parametrize("after", [1, 4])
def test_killed_between_episodes_it_goes_on_where_it_stopped(tmp_path, fake_lanes, after):
    seen = []

    def kill(*_):
        seen.append(1)
        if len(seen) == after:
            raise Kill

    with pytest.raises(Kill):
        fill(tmp_path / "killed", fake_lanes, Policy(), tick=kill)
    assert len((tmp_path / "killed").read_text().splitlines()) == after
    policy = Policy()
    again = fill(tmp_path / "killed", fake_lanes, policy)
    assert again == fill(tmp_path / "whole", fake_lanes, Policy())
    asked = {
        (text, int(seed)) for query in policy.queries for text, seed in zip(query.instruction, query.seed, strict=True)
    }
    assert asked == {(job.instruction, job.seed) for job in JOBS[after:]}


def test_nothing_missing_starts_no_simulator(tmp_path, fake_lanes):
    before = fill(tmp_path / "e", fake_lanes, Policy())

    def refuse():
        raise AssertionError("a simulator was started")

    assert fill(tmp_path / "e", refuse, Policy()) == before


def test_the_farm_closes_what_it_started(fake_lanes):
    with rollouts.Farm(fake_lanes) as farm:
        started = farm.lanes
        assert farm.lanes is started
    assert started.closed


def test_a_swapped_episode_asks_for_the_other_task(tmp_path, fake_lanes):
    policy = Policy()
    fill(tmp_path / "e", fake_lanes, policy, condition="swapped", jobs=conditions.jobs("swapped", TASKS, [2]))
    asked = {text for query in policy.queries for text in query.instruction}
    assert asked == {metaworld_tasks.instruction(task, 2) for task in metaworld_tasks.LOOK_ALIKE}
    lines = [json.loads(line) for line in (tmp_path / "e").read_text().splitlines()]
    opened = next(line for line in lines if line["task"] == "faucet-open")
    assert opened["instruction"] in metaworld_tasks.TASKS["faucet-close"].phrasings


def test_held_out_phrasings_reach_the_policy(tmp_path, fake_lanes):
    policy = Policy()
    fill(tmp_path / "e", fake_lanes, policy, condition="held-out", jobs=conditions.jobs("held-out", TASKS, range(2)))
    held = {text for task in TASKS for text in metaworld_tasks.TASKS[task].held_out}
    assert {text for query in policy.queries for text in query.instruction} <= held


def test_a_noisy_condition_changes_the_frames_alone(tmp_path, fake_lanes):
    frames = {}
    for condition in ("normal", "noise"):
        policy = Policy()
        fill(tmp_path / condition, fake_lanes, policy, condition=condition, jobs=JOBS[:1])
        frames[condition] = policy.queries[0].frames
    assert 5 < np.abs(frames["noise"].astype(float) - frames["normal"]).mean() < 25


def test_an_episode_of_another_policy_is_refused_before_anything_runs(tmp_path, fake_lanes):
    fill(tmp_path / "e", fake_lanes, Policy())
    other = rollouts.Contestant("student", Policy(), "d1", 0)
    with rollouts.Farm(fake_lanes) as farm, pytest.raises(outcomes.OutcomeError, match="another --out"):
        rollouts.fill(outcomes.Ledger(tmp_path / "e"), other, "normal", [simulator.Job("x", 1)], farm=farm, tick=print)
