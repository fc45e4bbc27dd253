"""The ledger of episodes: nothing is lost, nothing runs twice, nothing of another policy slips in."""

import json

import numpy as np
import pytest

from bridge import conditions, outcomes, simulator

JOBS = [simulator.Job(task, seed) for task in ("a", "b") for seed in (7, 8, 9)]


def outcome(task, seed, **changes):
    fields = {
        "policy": "student",
        "digest": "d0",
        "condition": "normal",
        "student_seed": 0,
        "instruction": "x",
        "steps": 12,
    }
    return outcomes.Outcome(task=task, goal_seed=seed, **{**fields, "success": seed == 8, **changes})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "raw" / "episodes.jsonl"


@pytest.fixture
def ledger(path):
    made = outcomes.Ledger(path)
    for job in JOBS:
        made.add(outcome(job.task, job.seed))
    return made


def test_a_line_has_every_field_that_re_scoring_needs(ledger, path):
    line = json.loads(path.read_text().splitlines()[0])
    assert {"suite", "policy", "task", "goal_seed", "student_seed", "success", "steps"} < set(line)
    assert {"instruction", "condition", "digest"} < set(line)
    assert line["suite"] == "metaworld"


def test_what_was_added_is_found_again_by_another_process(ledger, path):
    again = outcomes.Ledger(path)
    assert again.missing("student", 0, "normal", JOBS) == []
    np.testing.assert_array_equal(again.success("student", "normal", JOBS, seeds=[0]), [[[0, 1, 0]] * 2])


def test_success_follows_the_order_of_the_jobs_not_of_the_file(path):
    made = outcomes.Ledger(path)
    for job in reversed(JOBS):
        made.add(outcome(job.task, job.seed, success=(job.task, job.seed) == ("b", 7)))
    np.testing.assert_array_equal(made.success("student", "normal", JOBS, seeds=[0])[0], [[0, 0, 0], [1, 0, 0]])


def test_other_seeds_conditions_and_policies_are_still_missing(ledger):
    for group in (("student", 1, "normal"), ("student", 0, "noise"), ("other", 0, "normal")):
        assert ledger.missing(*group, JOBS) == JOBS
    assert ledger.success("student", "normal", JOBS, seeds=[0, 1]) is None


def test_a_torn_last_line_is_dropped_and_its_episode_missing(ledger, path):
    path.write_text(path.read_text()[:-30])
    again = outcomes.Ledger(path)
    assert again.missing("student", 0, "normal", JOBS) == [JOBS[-1]]
    again.add(outcome("b", 9))
    assert len(outcomes.Ledger(path).of("student", 0, "normal")) == 6


def test_a_last_line_that_lacks_its_end_alone_is_kept(ledger, path):
    path.write_text(path.read_text()[:-1])
    outcomes.Ledger(path).add(outcome("c", 1))
    assert len(path.read_text().splitlines()) == 7


def test_a_damaged_line_in_the_middle_is_named(ledger, path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    with pytest.raises(outcomes.OutcomeError, match="line 2 is damaged"):
        outcomes.Ledger(path)


def test_episodes_of_other_rules_are_not_mixed_in(ledger, path, monkeypatch):
    monkeypatch.setitem(conditions.CAMERAS, "normal", simulator.Conditions(execute=8))
    with pytest.raises(outcomes.OutcomeError, match=r"other rules \(condition normal.*another --out"):
        outcomes.Ledger(path)


def test_another_policy_under_the_same_name_is_an_error(ledger):
    ledger.claim("student", 0, "d0")
    ledger.claim("student", 1, "other seed, other weights")
    with pytest.raises(outcomes.OutcomeError, match="another --out"):
        ledger.claim("student", 0, "d1")
    with pytest.raises(outcomes.OutcomeError, match="another student"):
        ledger.add(outcome("a", 10, digest="d1"))


def test_fields_that_other_commands_add_are_no_damage(ledger, path):
    path.write_text(
        path.read_text() + json.dumps({**json.loads(path.read_text().splitlines()[0]), "task": "c", "more": 1}) + "\n"
    )
    assert len(outcomes.Ledger(path).of("student", 0, "normal")) == 7
