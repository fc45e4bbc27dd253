"""Every fidelity number against a direct computation on small arrays."""

import numpy as np
import pytest

from eval import fidelity, report, statistics

CONTEXT = report.Context("stand-in", "none", "tiny", 1, "cpu", "abc", "test")
TASKS, FRAMES, TOKENS, WIDTH = 5, 12, 4, 3
RNG = np.random.default_rng(0)
TASK = np.sort(np.concatenate([np.arange(TASKS), RNG.integers(0, TASKS, FRAMES - TASKS)]))
TRUTH = RNG.normal(3, 1, (FRAMES, TOKENS, WIDTH))
INSIDE = RNG.random((FRAMES, TOKENS)) < 0.4


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


ATTENTION = softmax(RNG.normal(size=(FRAMES, 1, TOKENS)))


def scored(predicted, attention=ATTENTION, unit=2.0):
    scores = fidelity.Scores(TASKS, WIDTH, unit)
    for part in np.array_split(np.arange(FRAMES), 3):  # streamed in three batches
        scores.add(
            TASK[part],
            tokens=TRUTH[part],
            predicted=predicted[part],
            attention=ATTENTION[part],
            predicted_attention=None if attention is None else attention[part],
            inside=INSIDE[part],
        )
    return scores


def book(draws=200):
    truth = fidelity.Truth(TASKS, WIDTH)
    for part in np.array_split(np.arange(FRAMES), 2):
        truth.add(TASK[part], TRUTH[part])
    weights = statistics.resamples(TASKS, draws, np.random.default_rng(1))
    inside = fidelity.Truth(TASKS, WIDTH)
    inside.add(TASK, TRUTH, INSIDE)
    return fidelity.Book(truth, inside, weights, "test", CONTEXT)


def by_id(rows):
    return {row.id: row for row in rows}


def near(noise):
    return TRUTH + noise * np.random.default_rng(7).normal(size=TRUTH.shape)


def direct_r2(predicted):
    flat, guess = TRUTH.reshape(-1, WIDTH), predicted.reshape(-1, WIDTH)
    return 1 - ((flat - guess) ** 2).sum(0) / ((flat - flat.mean(0)) ** 2).sum(0)


def test_r2_mean_and_tenth_percentile_equal_the_definition():
    rows = by_id(book().quality("student", [scored(near(0.3))]))
    channels = direct_r2(near(0.3))
    assert rows["vision.student.r2_mean.test"].value == pytest.approx(channels.mean())
    assert rows["vision.student.r2_p10.test"].value == pytest.approx(np.quantile(channels, 0.1))
    assert rows["vision.student.r2_mean.test"].bar == 0.95


def test_r2_inside_is_that_of_the_tokens_inside_alone():
    got = by_id(book().quality("student", [scored(near(0.3))]))["vision.student.r2_mean_inside.test"]
    truth, guess = TRUTH[INSIDE], near(0.3)[INSIDE]
    want = 1 - ((truth - guess) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)
    assert got.value == pytest.approx(want.mean())


def test_the_interval_is_the_bootstrap_over_tasks():
    rows, ledger = by_id(book().quality("student", [scored(near(0.3))])), book()
    values = []
    for draw in ledger.weights.astype(int):
        index = np.concatenate(
            [np.repeat(np.flatnonzero(np.equal(TASK, task)), times) for task, times in enumerate(draw)]
        )
        truth, guess = TRUTH[index].reshape(-1, WIDTH), near(0.3)[index].reshape(-1, WIDTH)
        values.append(np.mean(1 - ((truth - guess) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)))
    row = rows["vision.student.r2_mean.test"]
    assert (row.ci_low, row.ci_high) == pytest.approx(statistics.interval(np.array(values)))
    assert row.n == TASKS


def test_seeds_give_the_mean_and_the_range():
    single = [direct_r2(near(noise)).mean() for noise in (0.2, 0.4)]
    row = book().quality("student", [scored(near(noise)) for noise in (0.2, 0.4)])[0]
    assert row.value == pytest.approx(np.mean(single))
    assert (row.seed_low, row.seed_high, row.seeds) == (pytest.approx(min(single)), pytest.approx(max(single)), 2)


def test_cosine_by_hand():
    truth, guess = np.array([[[3.0, 4.0], [1.0, 0.0]]]), np.array([[[4.0, 3.0], [-2.0, 0.0]]])
    assert fidelity.cosine(truth, guess) == pytest.approx(np.array([[24 / 25, -1.0]]))


def test_divergence_by_hand():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert fidelity.divergence(p, q) == pytest.approx(np.log(2))
    assert fidelity.divergence(p, p) == pytest.approx(0.0)


def test_divergence_stays_finite_where_the_student_says_never():
    assert fidelity.divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(12 * np.log(10))


def test_attention_kl_is_the_mean_over_frames_and_absent_without_a_prediction():
    other = softmax(RNG.normal(size=ATTENTION.shape))
    rows = by_id(book().quality("student", [scored(TRUTH, other)]))
    want = (ATTENTION * np.log(ATTENTION / other)).sum(-1).mean()
    assert rows["vision.student.attention_kl.test"].value == pytest.approx(want)
    assert "vision.ridge.attention_kl.test" not in by_id(book().quality("ridge", [scored(TRUTH, None)]))


def test_error_is_the_mean_squared_error_in_units_of_the_channel_variance():
    error = scored(near(0.3)).frames().error
    assert error == pytest.approx(((near(0.3) - TRUTH) ** 2).mean((1, 2)) / 2.0)


def student(noises, energy=None, output=-1):
    steps = tuple(scored(near(noise)) for noise in noises)
    error = steps[output].frames().error
    energy = error / (error + 0.1) if energy is None else energy
    taken = np.full(FRAMES, len(noises) - 1)
    return fidelity.Student(steps[output], steps, energy, np.zeros((FRAMES, len(noises))), taken, 0.1)


def test_steps_that_improve_pass_and_a_step_that_worsens_fails():
    better, worse = (book().steps([student(noises)])[-1] for noises in ((0.5, 0.3, 0.2), (0.5, 0.2, 0.3)))
    assert better.id == "vision.student.step_gain_worst.test"
    assert better.passed
    assert not worse.passed
    assert worse.note == "step 1 to 2"
    assert worse.value == pytest.approx(
        scored(near(0.2)).frames().error.mean() - scored(near(0.3)).frames().error.mean()
    )
    assert worse.ci_low <= worse.value <= worse.ci_high


def test_every_step_has_a_row():
    ids = [row.id for row in book().steps([student((0.5, 0.3))])]
    assert {f"vision.student.r2_mean_step_{k}.test" for k in (0, 1)} <= set(ids)


def test_energy_rank_correlation_and_calibration_of_a_perfect_energy():
    rows = by_id(book().energies([student((0.5, 0.3))]))
    assert rows["vision.student.energy_rank_correlation.test"].value == pytest.approx(1.0)
    assert rows["vision.student.energy_calibration_error.test"].value == pytest.approx(0.0)
    assert rows["vision.student.steps_taken.test"].value == 1


def test_an_energy_that_says_the_opposite_fails():
    error = scored(near(0.3)).frames().error
    row = book().energies([student((0.3,), energy=1 / (1 + error))])[0]
    assert row.value == pytest.approx(-1.0)
    assert row.verdict == "FAIL"


def test_margin_is_over_the_best_baseline():
    got = book().margin([student((0.2,))], {"poor": [scored(near(2.0))], "good": [scored(near(0.5))]})
    assert got.value == pytest.approx(direct_r2(near(0.2)).mean() - direct_r2(near(0.5)).mean())
    assert "good" in got.note
    assert got.passed


def test_a_student_below_a_baseline_fails():
    assert not book().margin([student((0.6,))], {"good": [scored(near(0.5))]}).passed


def test_baselines_have_no_bar():
    assert all(row.bar is None for row in book().quality("position_mean", [scored(near(0.5))]))
