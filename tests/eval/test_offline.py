"""Offline scores: sums against definitions, a perfect student, no label among a student's inputs, the rows' bars."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge import store
from eval import control, observations, offline, offline_rows, report, runs
from eval.frames import SplitError
from student_jax import irp
from train import actor as actors

CONTEXT = report.Context("stand-in", "sim", "tiny", 1000, "cpu", "abc", "command")
RNG = np.random.default_rng(0)
ONE = np.ones((1, 4))


def book(scores, seen, needs=""):
    return offline_rows.Book(scores, seen, CONTEXT, suite="metaworld", needs=needs, draws=50, seed=0)


def moments(target, predicted, unit, **options):
    made = offline.Moments(4, len(predicted), target.shape[-1], **options)
    made.add(unit, target, predicted)
    return made


def test_r_squared_and_mse_by_definition():
    target, unit = RNG.normal([0, 5], size=(10, 3, 2)), np.arange(10) % 4
    predicted = np.stack([target, target + 1, np.broadcast_to(target.mean((0, 1)), target.shape)])
    made = moments(target, predicted, unit)
    np.testing.assert_allclose(made.mse(ONE)[0, :2], [0, 1])
    spread = np.square(target - target.mean((0, 1))).sum()
    np.testing.assert_allclose(made.r2(ONE)[0], [1, 1 - 60 / spread, 0], atol=1e-12)


def test_weights_count_units_as_often_as_they_say():
    target, unit = RNG.normal(size=(8, 2)), np.repeat(np.arange(4), 2)
    predicted = target[None] + RNG.normal(size=(1, 8, 2))
    twice = moments(
        np.concatenate([target, target[:2]]), np.concatenate([predicted, predicted[:, :2]], 1), [*unit, 0, 0]
    )
    once = moments(target, predicted, unit)
    np.testing.assert_allclose(once.r2(np.array([[2.0, 1, 1, 1]])), twice.r2(ONE))
    np.testing.assert_allclose(once.mse(np.array([[2.0, 1, 1, 1]])), twice.mse(ONE))


def test_channels_are_scored_one_by_one():
    target = RNG.normal(size=(6, 5, 2))
    predicted = target.copy()
    predicted[..., 1] = target[..., 1].mean()
    found = moments(target, predicted[None], np.arange(6) % 4, per_channel=True).channels(ONE)[0]
    np.testing.assert_allclose(found, [1, 0], atol=1e-12)


@pytest.fixture(scope="module")
def seen(robots):
    return observations.Observations(store.open(robots), "validation")


@pytest.fixture(scope="module")
def actor(make_acting, quickly):
    return control.load(runs.load([make_acting()])[0], rows=4)


def test_an_empty_split_and_a_lacking_feature_are_named(robots, stored):
    with pytest.raises(SplitError, match="empty"):
        observations.Observations(store.open(robots), "test")
    with pytest.raises(SplitError, match="instruction_id"):
        observations.Observations(store.open(stored), "validation")


def test_fewer_observations_are_spread_over_the_split(robots):
    few = observations.Observations(store.open(robots), "validation", most=4)
    assert few.records.tolist() == [12, 16, 19, 23]
    assert few.episodes.tolist() == [4, 5, 6, 7]


def test_a_batch_is_what_the_store_holds_and_shuffling_moves_its_images_alone(robots, seen, actor):
    reader = store.open(robots)
    (plain,), (mixed,) = (list(seen.batches(actor.words, 64, shuffled=flag)) for flag in (False, True))
    np.testing.assert_array_equal(plain.inputs["video"][3, 0], reader.record("frames", 15))
    np.testing.assert_array_equal(plain.fused_tokens[3].reshape(32, 8), reader.record("fused_tokens", 15).astype("f4"))
    np.testing.assert_array_equal(plain.inputs["noise"][5], reader.record("noise", 17)[0])
    assert {name for name in plain.inputs if (plain.inputs[name] != mixed.inputs[name]).any()} == {"video"}
    np.testing.assert_array_equal(plain.actions, mixed.actions)


def test_a_student_is_given_frames_state_instruction_and_noise_alone(seen, actor):
    (batch,) = seen.batches(actor.words, 64)
    assert set(batch.inputs) == {"video", "state", "tokens", "token_mask", "noise"}
    runner = offline._Runner(actor.student)
    labels = {f.name for f in dataclasses.fields(batch)} - {"inputs", "episode"}
    blank = dataclasses.replace(batch, **{name: np.zeros_like(getattr(batch, name)) for name in labels})
    for name, value in runner(batch).items():
        np.testing.assert_array_equal(runner(blank)[name], value)


def test_the_offline_student_is_the_one_that_acts(seen, actor):
    (batch,) = seen.batches(actor.words, 64)
    said = offline._Runner(actor.student)(batch)
    first = {name: value[:4] for name, value in batch.inputs.items()}
    noise = first["noise"][:, 1]
    for answer, x_0 in ((said["actions"][-1, :4, 1], noise), (said["own"][-1, :4], np.zeros_like(noise))):
        np.testing.assert_allclose(answer, actor.chunks(actors.Seen(**{**first, "noise": x_0})), atol=1e-5)


def test_whoever_says_what_the_teacher_says_scores_one(seen, actor, monkeypatch):
    def copy(self, batch):
        exact = np.clip(batch.actions, *self.limits)[None].repeat(3, 0)
        tokens = {"image_tokens": batch.image_tokens, "fused_tokens": batch.fused_tokens}
        return {"actions": exact, "own": exact.mean(axis=2), **tokens}

    monkeypatch.setattr(offline._Runner, "__call__", copy)
    scores = offline.score(actor.student, actor.words, seen, lambda done: None)
    found = {row.id: row for row in book([scores], seen).rows({})}
    for name in ("action_r2", "action_r2_noise", "token_r2_mean", "fused_r2_p10", "action_r2_step_0"):
        assert found[f"metaworld.student.{name}.validation"].value == 1
    assert found["metaworld.student.action_mse.validation"].value == 0
    assert found["metaworld.student.demonstration_mse.validation"].value > 0
    assert found["metaworld.student.action_r2.validation"].verdict == "PASS"


def test_the_noise_floor_is_half_the_squared_distance_of_two_draws(seen, actor, monkeypatch):
    mean = lambda self, batch: {  # noqa: E731
        "actions": np.broadcast_to(np.clip(batch.actions, *self.limits).mean(1, keepdims=True), batch.actions.shape)[
            None
        ],
        "own": np.zeros_like(batch.demonstration)[None].repeat(3, 0),
        "image_tokens": batch.image_tokens,
        "fused_tokens": batch.fused_tokens,
    }
    monkeypatch.setattr(offline._Runner, "__call__", lambda self, batch: {
        **mean(self, batch), "actions": mean(self, batch)["actions"].repeat(3, 0)
    })  # fmt: skip
    scores = offline.score(actor.student, actor.words, seen, lambda done: None)
    weights = np.ones((1, len(seen.episodes)))
    (batch,) = seen.batches(actor.words, 64)
    teacher = np.clip(batch.actions, *offline._Runner(actor.student).limits)
    pairs = [np.square(teacher[:, i] - teacher[:, j]).mean() / 2 for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(scores.noise_floor(weights), np.mean(pairs), rtol=1e-5)
    np.testing.assert_allclose(scores.residual.r2(weights), 0, atol=1e-6)


@pytest.fixture(scope="module")
def rows(seen, actor):
    scores = offline.score(actor.student, actor.words, seen, lambda done: None)
    known = {"action_r2": 0.5, "action_r2_shuffled_images": 0.1}
    made = book([scores, scores], seen)
    return {row.id: row for row in made.rows(known)}, scores, made


def test_every_step_has_its_row_and_bars_are_the_ones_asked_for(rows):
    found, _, _ = rows
    for step in range(3):
        for name in ("action_r2", "action_r2_noise", "action_mse", "action_mse_over_floor"):
            assert found[f"metaworld.student.{name}_step_{step}.validation"].value is not None
    bars = {name.split(".")[2]: row.bar for name, row in found.items() if row.bar is not None}
    judged = {"action_r2": 0.97, "action_r2_noise": 0.85, "action_mse": 0.01, "token_r2_mean": 0.97}
    assert bars == {**judged, "shuffled_images_use": 0.8}
    assert found["metaworld.student.action_r2.validation"].seeds == 2
    judged, second = found["metaworld.student.action_r2.validation"], "metaworld.student.action_r2_step_2.validation"
    assert "after 2" in judged.note
    assert judged.value == found[second].value, "whichever step fits better"


def test_image_use_is_measured_against_the_teachers_own_loss(rows):
    found, scores, book = rows
    whole = np.ones((1, len(scores.floor)))
    before, after = (one.r2(whole)[0, -1] for one in (scores.shown, scores.shown_shuffled))
    drop = (before - after) / abs(before)
    assert found["metaworld.student.shuffled_images_use.validation"].value == pytest.approx(drop / 0.8)
    unknown = {row.id: row for row in book.rows({"action_r2_shuffled_images": 0.1})}[
        "metaworld.student.shuffled_images_use.validation"
    ]
    assert (unknown.value, unknown.verdict) == (None, "FAIL")


@pytest.mark.parametrize("known", [{}, {"action_r2": 0.5, "action_r2_shuffled_images": 0.1}])
def test_no_bar_is_judged_on_fewer_tasks_or_observations_than_it_is_defined_on(rows, seen, known):
    found = [row for row in book([rows[1]], seen, ">= 8 tasks").rows(known) if row.bar is not None]
    assert len(found) == len(offline_rows.BARS)
    assert {(row.verdict, row.needs) for row in found} == {("not judged", ">= 8 tasks")}


def test_sums_are_enough_to_score_again(rows):
    _, scores, _ = rows
    arrays = scores.arrays()
    assert {"actions_sse", "image_total", "floor", "values", "shown_shuffled_count"} <= set(arrays)
    assert all(len(array) == len(scores.floor) for name, array in arrays.items() if not name.startswith("places_"))
    assert arrays["places_told"].shape == arrays["places_truth"].shape == (12, 2, 2, 2)


def test_objects_have_a_row_per_camera_beside_the_mean_place(rows, seen):
    _, scores, made = rows
    exact = dataclasses.replace(scores, places=dataclasses.replace(scores.places, told=scores.places.truth))
    guess = np.full((2, 2, 2), 0.5)
    found = {row.id: row for row in book([exact], seen).rows({}, guess)}
    for camera in ("side", "top"):
        row, simple = (
            found[f"metaworld.{who}.objects_error_{camera}.validation"] for who in ("student", "mean_position")
        )
        assert row.value == 0
        assert simple.value > 1
        assert row.n == simple.n == scores.places.count(seen.views.index(camera))
        assert "simulator truth, never an input" in row.note
    told = {row.id: row for row in made.rows({}, guess)}["metaworld.student.objects_error_top.validation"]
    assert (told.seeds, told.value) == (2, scores.places.median(1, np.ones((1, 4)))[0])


def test_what_the_student_tells_of_objects_is_its_vision_after_all_steps(seen, actor):
    (batch,) = seen.batches(actor.words, 64)
    given = irp.Inputs(**batch.inputs | {"noise": None}, frame_mask=np.ones((12, 1, 2), bool))
    inputs = jax.tree.map(jnp.asarray, given)
    vision = actor.student.vision
    last = irp.unroll(vision, inputs, jax.random.key(0), vision.description.max_steps)[-1]
    told = offline._Runner(actor.student)(batch)["objects"]
    np.testing.assert_allclose(told, vision.objects(last)[..., :2], atol=1e-5)


def test_a_student_that_tells_of_no_objects_has_an_empty_row_that_says_why(rows, seen):
    found = book([dataclasses.replace(rows[1], places=None)], seen).rows({}, np.full((2, 2, 2), 0.5))
    (row,) = [row for row in found if "objects" in row.id]
    assert row.value is None
    assert "--loss.objects 0" in row.note
