"""The sage suite's rows from made-up results: every bar can be met and missed, and means what it says."""

import dataclasses

import numpy as np
import pytest

from eval import economy, report, sage_book, sage_insight, sage_rows, wall
from eval.notebook import Noted
from student_jax.sage import trust

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
        "saliency": teacher, "teacher_saliency": teacher, "confidence": np.linspace(0, 1, 60),
        "teacher_confidence": np.linspace(0, 1, 60),
    }  # fmt: skip
    made = economy.Economy(**{**found, **changed})
    return sage_book.Offline(made, np.full((1, 2, 64), 1 / 128), 0.1, 0, 100, BEFORE, {"vision": 1.0})


BEFORE = {0: spent(0.3, 0.0), 1: spent(0.1), 2: spent(0.08, 10.0)}


def solved(share, seeds=3):
    made = np.zeros((seeds, 2, GOALS), bool)
    made[:, :, : round(share * GOALS)] = True
    return made


def outcomes(changed=None):
    found = {("sage", "normal", "test"): solved(0.9), ("sage_full", "normal", "test"): solved(0.9),
             ("before", "normal", "test"): solved(0.9), ("sage", "covered", "test"): solved(0.8, 1),
             ("sage_trustless", "covered", "test"): solved(0.5, 1),
             ("before", "covered", "test"): solved(0.5, 1)}  # fmt: skip
    notes = {
        ("sage", "normal", "test"): [noted(i, success=i % 10 > 0) for i in range(100)],
        ("sage", "normal", "validation"): [noted(i, success=i % 10 > 0) for i in range(100)],
        ("sage", "covered", "test"): [noted(i, trust=dipped(i)) for i in range(40)],
    }
    return sage_book.Outcomes(TASKS, GOALS, "test", found, {**notes, **(changed or {})})


def dipped(index, low=0.3):
    return np.concatenate([np.full(3, 0.9), np.full(10, low), np.full(17, 0.85)])


def book(made=None, against=None):
    seconds = {"own": np.full(64, 0.007), "full": np.full(64, 0.010), "before": np.full(64, 0.008)}
    clock = wall.Wall(seconds, {"vision": 0.5})
    return sage_book.Book(made or outcomes(), [against or offline()], [clock], CONTEXT, draws=200, seed=0)


def rows(*args, enough=True):
    made = book(*args)
    made.enough = "" if enough else "more"
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
    assert found["student.error_over_depths_050"].value == pytest.approx(0, abs=1e-6)
    assert found["student.error_over_depths_100"].value == pytest.approx(0.1 / 0.18 - 1, abs=0.01), "at 6 of 5 and 10"
    assert found["student.error_over_depths_100"].passed
    wrong = {0.0: spent(0.1, 0.0), 0.5: spent(0.25), 1.0: spent(0.1, 6.0)}
    found = rows(outcomes(), offline(budgets=wrong))
    assert found["student.dial_wrong_way"].value == pytest.approx(0.15, abs=1e-3)
    assert found["student.dial_wrong_way"].passed is False
    assert found["student.error_over_depths_050"].passed is False


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


def test_few_failures_or_episodes_are_not_judged():
    assert rows()["student.failure_auroc"].passed is None, "ten failures"
    many = [noted(i, success=i % 10 > 2) for i in range(100)]
    plenty = {("sage", "normal", "test"): many, ("sage", "normal", "validation"): many}
    assert rows(outcomes(plenty))["student.failure_auroc"].passed
    small = rows(outcomes(plenty), enough=False)
    for name in ("failure_auroc", "calibration_error", "failures_cut", "trust_fell", "trust_recovered"):
        assert small[f"student.{name}"].passed is None, name


def test_trust_must_fall_soon_and_come_back():
    found = rows()
    assert found["student.trust_fell"].value == 1
    assert found["student.trust_recovered"].value == 1
    deaf = rows(outcomes({("sage", "covered", "test"): [noted(i, trust=dipped(i, low=0.8)) for i in range(40)]}))
    assert deaf["student.trust_fell"].passed is False
    assert deaf["student.trust_recovered"].value is None, "what never fell has not recovered"
    lasting = np.concatenate([np.full(3, 0.9), np.full(27, 0.2)])
    broken = {("sage", "covered", "test"): [noted(i, trust=lasting) for i in range(40)]}
    assert rows(outcomes(broken))["student.trust_recovered"].passed is False
    short = {("sage", "covered", "test"): [noted(i, decisions=4) for i in range(40)]}
    assert rows(outcomes(short))["student.trust_fell"].value is None


def test_false_alarms_are_counted():
    assert rows()["student.false_alarms"].value == 0
    nervous = {("sage", "normal", "test"): [noted(i, trust=dipped(i)) for i in range(40)]}
    assert rows(outcomes(nervous))["student.false_alarms"].value == 1


def test_outcomes_are_read_back_from_trust():
    rng = np.random.default_rng(0)
    came = rng.random(40) < 0.7
    posterior = trust.Posterior(np.array([0.95]))
    told = [posterior.trust[0]] * 2
    for one in came:
        posterior.observe(np.array([float(one)]))
        told.append(posterior.trust[0])
    before, found = sage_insight.verdicts(np.round(np.array(told, np.float64), 5))
    np.testing.assert_array_equal(found, came)
    np.testing.assert_allclose(before, np.array(told)[1:-1], atol=1e-5)


def test_without_episodes_trust_is_not_judged():
    bare = {key: [] for key in (("sage", "normal", "test"), ("sage", "covered", "test"))}
    assert sage_insight.calibration(book(outcomes(bare))).value is None


def test_what_each_part_is_good_for_is_a_difference():
    found = rows()
    assert found["student.covered_over_trustless"].value == pytest.approx(30)
    assert found["student.covered_over_trustless_low"].passed
    idle = outcomes()
    same = {**idle.found, ("sage_trustless", "covered", "test"): idle.found["sage", "covered", "test"]}
    nothing = rows(dataclasses.replace(idle, found=same))
    assert nothing["student.covered_over_trustless_low"].passed is False, "no difference is no gain"
    assert "no difference" in nothing["student.covered_over_trustless"].note
    worse = {**idle.found, ("sage", "normal", "test"): solved(0.8)}
    assert rows(dataclasses.replace(idle, found=worse))["student.over_before_low"].passed is False
    assert found["student.over_before_low"].passed


def test_the_student_before_is_compared_at_equal_and_at_all_its_compute():
    found = rows()
    assert found["student.error_over_before_equal"].value == pytest.approx(0.1 / 0.096 - 1, abs=0.01)
    assert found["student.error_over_before"].value == pytest.approx(0.25, abs=0.01)
    assert found["student.wall_over_before"].value == pytest.approx(1 / 8)
