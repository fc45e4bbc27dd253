"""The sage suite's rows from made-up results: every bar can be met and missed, and means what it says."""

import dataclasses

import numpy as np
import pytest

from eval import economy, report, sage_book, sage_insight, sage_rows, wall
from eval.notebook import Noted

CONTEXT = report.Context("stand-in", "sim", "tiny", 1000, "cpu", "abc", "command")
TASKS, GOALS, FULL = ("drawer-open", "faucet-open"), 50, 10.0
RNG = np.random.default_rng(0)


def noted(index, *, success=True, atp=5.0, trust=0.9, policy="sage", condition="normal", decisions=30):
    line = np.full(decisions, trust) if np.isscalar(trust) else np.asarray(trust)
    return Noted(
        policy, condition, TASKS[index % 2], index, 0, success, np.full(len(line), 0.9 if success else 0.4),
        np.full((len(line), 3), 0.5), np.full((len(line), 3), 1), np.full(len(line), atp),
        np.stack([line, np.full(len(line), 0.9), np.full(len(line), 0.9)], axis=1), np.ones((len(line), 2), bool),
    )  # fmt: skip


def spent(error, atp=5.0, n=60):
    return economy.Spent(np.full(n, atp), np.full(n, error) + 1e-3 * np.sin(np.arange(n)))


def offline(**changed):
    teacher = RNG.dirichlet(np.full(128, 0.05), size=60).reshape(60, 2, 64)
    found = {
        "episode": np.arange(60) // 3,
        "full": FULL,
        "budgets": {0.0: spent(0.3, 0.0), 0.5: spent(0.2), 1.0: spent(0.1, 6.0)},
        "depths": {0: spent(0.3, 0.0), 1: spent(0.2), 2: spent(0.1, 10.0)},
        "equal": {0: spent(0.3, 0.0), 1: spent(0.15), 2: spent(0.1, 6.0)},
        "saliency": teacher, "teacher_saliency": teacher, "confidence": np.linspace(0, 1, 60),
        "teacher_confidence": np.linspace(0, 1, 60),
    }  # fmt: skip
    made = economy.Economy(**{**found, **changed})
    return sage_book.Offline(made, np.full((1, 2, 64), 1 / 128), 0.1, 0, 100, spent(0.4), {"vision": 1.0})


def solved(share, seeds=3):
    made = np.zeros((seeds, 2, GOALS), bool)
    made[:, :, : round(share * GOALS)] = True
    return made


def outcomes(changed=None):
    found = {("sage", "normal", "test"): solved(0.9), ("sage_full", "normal", "test"): solved(0.9),
             ("before", "normal", "test"): solved(0.9, 1), ("sage", "covered", "test"): solved(0.8, 1),
             ("sage_trustless", "covered", "test"): solved(0.5, 1),
             ("before", "covered", "test"): solved(0.5, 1)}  # fmt: skip
    notes = {
        ("sage", "normal", "test"): [noted(i, success=i % 10 > 0) for i in range(100)],
        ("sage", "normal", "validation"): [noted(i, success=i % 10 > 0) for i in range(100)],
        ("sage", "covered", "test"): [noted(i, trust=dipped(i)) for i in range(40)],
    }
    return sage_book.Outcomes(TASKS, GOALS, found, {**notes, **(changed or {})})


def dipped(index, low=0.3):
    return np.concatenate([np.full(3, 0.9), np.full(10, low), np.full(17, 0.85)])


def book(made=None, against=None):
    clock = wall.Wall({"own": np.full(64, 0.007), "full": np.full(64, 0.010)}, {"vision": 0.5})
    return sage_book.Book(made or outcomes(), [against or offline()], [clock], CONTEXT, draws=200, seed=0)


def rows(*args):
    made = book(*args)
    found = report.Report((*sage_rows.rows(made), *sage_insight.rows(made)), {})
    return {row.id.removeprefix("sage.").removesuffix(".test"): row for row in found.rows}


def test_what_is_saved_is_counted_against_all_steps():
    found = rows()
    assert found["student.steps_saved"].value == pytest.approx(0.5)
    assert found["student.wall_saved"].value == pytest.approx(0.3)
    assert found["student.steps_saved"].passed
    dear = {("sage", "normal", "test"): [noted(i, atp=9.0) for i in range(20)]}
    assert rows(outcomes(dear))["student.steps_saved"].passed is False


def test_less_thought_is_judged_on_enough_episodes_alone_and_can_fail():
    assert rows()["student.over_all_steps_low"].passed is None
    grown = outcomes()
    wide = {key: np.tile(value, (12, 1, 1))[:12] for key, value in grown.found.items()}
    assert rows(dataclasses.replace(grown, found=wide))["student.over_all_steps_low"].passed
    worse = {**wide, ("sage", "normal", "test"): np.tile(solved(0.8), (4, 1, 1))}
    assert rows(dataclasses.replace(grown, found=worse))["student.over_all_steps_low"].passed is False


def test_the_dial_must_not_turn_the_wrong_way_nor_be_worse_than_a_fixed_depth():
    found = rows()
    assert found["student.dial_wrong_way"].passed
    assert found["student.error_over_depth_1"].value == pytest.approx(-0.25, abs=0.01)
    wrong = {0.0: spent(0.1, 0.0), 0.5: spent(0.2), 1.0: spent(0.1, 6.0)}
    found = rows(outcomes(), offline(budgets=wrong, equal={0: spent(0.3), 1: spent(0.25), 2: spent(0.1)}))
    assert found["student.dial_wrong_way"].value == pytest.approx(0.1, abs=1e-3)
    assert found["student.dial_wrong_way"].passed is False
    assert found["student.error_over_depth_1"].passed is False


def test_an_overdraft_fails():
    assert rows()["student.violations"].passed
    assert rows(outcomes(), dataclasses.replace(offline(), violations=1))["student.violations"].passed is False


def test_saliency_is_scored_beyond_the_best_that_looks_at_nothing():
    found = rows()
    assert found["student.saliency_score"].value == pytest.approx(1)
    blind = offline(saliency=np.broadcast_to(np.linspace(1, 2, 128).reshape(1, 2, 64) / 192, (60, 2, 64)))
    assert rows(outcomes(), blind)["student.saliency_score"].passed is False


def test_whether_it_knows_is_told_from_episodes_that_it_was_not_fitted_on():
    found = rows()
    assert found["student.failure_auroc"].value == 1
    assert found["student.failures_cut"].value == pytest.approx(1)
    lucky = {("sage", "normal", "test"): [noted(i) for i in range(50)]}
    assert rows(outcomes(lucky))["student.failure_auroc"].value is None


def test_trust_must_fall_soon_and_come_back():
    found = rows()
    assert found["student.trust_fell"].value == 1
    assert found["student.trust_recovered"].value == 1
    deaf = {("sage", "covered", "test"): [noted(i, trust=dipped(i, low=0.8)) for i in range(40)]}
    assert rows(outcomes(deaf))["student.trust_fell"].passed is False
    lasting = np.concatenate([np.full(3, 0.9), np.full(27, 0.2)])
    broken = {("sage", "covered", "test"): [noted(i, trust=lasting) for i in range(40)]}
    assert rows(outcomes(broken))["student.trust_recovered"].passed is False
    short = {("sage", "covered", "test"): [noted(i, decisions=4) for i in range(40)]}
    assert rows(outcomes(short))["student.trust_fell"].value is None


def test_what_each_part_is_good_for_is_a_difference():
    found = rows()
    assert found["student.covered_over_trustless"].value == pytest.approx(30)
    assert found["student.covered_over_trustless"].passed
    assert found["student.error_over_even_split"].value == pytest.approx(-0.75, abs=0.01)
