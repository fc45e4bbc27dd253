"""What a student says is scored as it is, whatever the batch; baselines are fitted on their own split."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bridge import standardise
from eval import scoring
from eval.frames import Frames
from student_jax import config, presets
from student_jax.student import Student


@pytest.fixture(scope="module")
def settings():
    return presets.make("tiny", config.Target(width=8, grid=3))


@pytest.fixture(scope="module")
def student(settings):
    made = Student(settings, rngs=nnx.Rngs(3))
    made.vision.mean[...] = jnp.linspace(0, 1, 8)
    made.vision.basis[...] = 2.0 * jnp.eye(8)
    return made


@pytest.fixture(scope="module")
def frames(reader):
    return Frames(reader, "test")


@pytest.fixture(scope="module")
def image(frames):
    return frames.image(np.arange(5))


def test_unit_is_the_square_of_the_scale(student):
    assert scoring.unit(student) == pytest.approx(4.0)


def test_error_in_units_is_the_error_that_training_predicts(student):
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(500, 8)) * np.arange(1, 9)
    made = standardise.phi_s(tokens.mean(0), np.cov(tokens.T, bias=True))
    other = tokens + rng.normal(size=tokens.shape)
    inverse = np.linalg.inv(made.basis.astype(np.float64))
    in_phi_s = np.square((other - tokens) @ inverse).mean()
    scale = np.square(made.basis.astype(np.float64)).sum() / 8
    assert np.square(other - tokens).mean() / scale == pytest.approx(in_phi_s, rel=1e-4)


def test_a_frame_gets_the_same_answer_in_whatever_company(student, image):
    runner = scoring.Runner(student, batch=4)
    assert runner.answer(image).tokens[4] == pytest.approx(runner.answer(image[4:]).tokens[0], abs=1e-5)
    assert runner.unroll(image).energy[3] == pytest.approx(runner.unroll(image[2:]).energy[1], abs=1e-5)
    assert runner.answer(image).tokens.shape[0] == 5


def test_the_output_is_one_of_the_unrolled_states(student, image):
    runner = scoring.Runner(student, batch=4)
    answer, states = runner.answer(image), runner.unroll(image)
    distance = np.abs(states.tokens - answer.tokens[:, None]).max((2, 3))
    assert distance.min(1) == pytest.approx(np.zeros(5), abs=1e-5)
    assert states.tokens.shape[1] == student.vision.description.max_steps + 1


def test_half_the_pixels_are_the_same_observation(student, frames):
    runner = scoring.Runner(student, batch=4)
    positions = np.arange(2)
    large = runner.answer(frames.image(positions, pixels=30))
    assert np.array_equal(runner.answer(frames.image(positions, pixels=15)).tokens, large.tokens)


def test_the_untrained_student_has_other_weights_and_the_same_constants(student, settings):
    fresh = scoring.untrained(student, settings, seed=9)
    assert np.array_equal(fresh.vision.mean[...], student.vision.mean[...])
    assert not np.array_equal(fresh.vision.embed.kernel[...], student.vision.embed.kernel[...])


def test_a_tally_equals_scoring_everything_at_once(student, frames, monkeypatch):
    runner, image = scoring.Runner(student, batch=4), frames.image(np.arange(len(frames)))
    tally, ground = scoring.Tally(runner, frames), scoring.Ground(frames)
    monkeypatch.setattr("eval.frames.LARGEST_BATCH", 3)
    done = []
    scoring.stream(frames, [ground, tally], done.append)
    got, answer, states = tally.student(), runner.answer(image), runner.unroll(image)
    tokens = frames.read(np.arange(len(frames))).tokens
    assert sum(done) == len(frames)
    assert got.output.sse.sum(0) == pytest.approx(np.square(answer.tokens - tokens).sum((0, 1)), rel=1e-4)
    assert got.steps[2].sse.sum(0) == pytest.approx(np.square(states.tokens[:, 2] - tokens).sum((0, 1)), rel=1e-4)
    assert got.energy == pytest.approx(answer.energy, abs=1e-5)
    assert got.step_energy == pytest.approx(states.energy, abs=1e-5)
    assert ground.everywhere.total.sum(0) == pytest.approx(tokens.sum((0, 1)), rel=1e-5)


def test_position_mean_is_the_training_mean(reader, frames):
    train = Frames(reader, "train")
    predicted, attention = scoring.position_mean(train)(frames.read(np.arange(2)))
    everything = train.read(np.arange(len(train)))
    assert predicted[0] == pytest.approx(everything.tokens.mean(0), abs=1e-5)
    assert attention[1] == pytest.approx(everything.attention.mean(0), abs=1e-5)


def test_ridge_learns_most_of_a_teacher_that_is_nearly_linear_in_pixels(reader, frames):
    predict = scoring.ridge(*(Frames(reader, split) for split in ("train", "validation")))
    ground, book = scoring.Ground(frames), scoring.Reference(predict, frames, 1.0)
    scoring.stream(frames, [ground, book], lambda done: None)
    assert book.scores.r2(ground.everywhere)(np.ones((1, len(frames.tasks)))).mean() > 0.9
