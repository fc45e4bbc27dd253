"""A student as a policy: what reaches it, that a row depends on nothing but itself, and how steps are limited."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge import embodiment, metaworld_tasks, simulator
from bridge.transform import EmbodimentError
from eval import control, runs
from student_jax import irp
from train import actor as actors

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def run(make_acting):
    return runs.load([make_acting()])[0]


@pytest.fixture(scope="module")
def actor(run):
    return control.load(run, rows=4)


def query(rows=4, seed=0):
    rng = np.random.default_rng(seed)
    texts = tuple(metaworld_tasks.instruction("drawer-open", i) for i in range(rows))
    frames = rng.integers(0, 256, (rows, 2, 32, 32, 3), np.uint8)
    return simulator.Query(frames, rng.normal(size=(rows, 4)).astype("f4"), texts, *rng.integers(0, 99, (2, rows)))


def picked(asked, at):
    frames, state, seed, decision = (getattr(asked, name)[at] for name in ("frames", "state", "seed", "decision"))
    return simulator.Query(frames, state, tuple(asked.instruction[i] for i in at), seed, decision)


def test_chunks_are_physical_and_cover_what_is_executed(actor):
    chunks = actor(query())
    assert chunks.shape == (4, 8, 4)
    said = actor.chunks(actor.see(query()))
    parts = embodiment.denormalise(actor.body, said)
    np.testing.assert_array_equal(chunks, np.concatenate([parts["delta"], parts["gripper"]], -1))


def test_a_row_does_not_depend_on_its_neighbours_or_its_place(actor):
    asked = query()
    whole = actor(asked)
    np.testing.assert_allclose(actor(picked(asked, [2, 0, 0, 0]))[0], whole[2], atol=1e-6)
    np.testing.assert_allclose(actor(picked(asked, [3]))[0], whole[3], atol=1e-6)


def test_it_acts_by_itself_unless_asked_to_draw_as_the_teacher_does(run, actor):
    asked, drawing = query(), control.load(run, rows=4, effort=actors.Effort(drawn=True))
    assert (drawing.see(asked).noise == drawing.see(asked).noise).all()
    assert not actor.see(asked).noise.any()
    for name in ("seed", "decision"):
        other = dataclasses.replace(asked, **{name: getattr(asked, name) + 1})
        np.testing.assert_array_equal(actor(other), actor(asked))
        assert (drawing.see(other).noise != drawing.see(asked).noise).all()
        assert np.abs(drawing(other) - drawing(asked)).max() > 1e-4


def test_views_come_in_the_order_of_the_embodiment(actor):
    asked = query()
    np.testing.assert_array_equal(actor.see(asked).video[:, 0], asked.frames[:, ::-1])


def test_state_is_normalised_by_the_runs_own_statistics(actor):
    low, high = (actor.body.statistics["state"]["hand"][name] for name in ("min", "max"))
    state = np.concatenate([low, [0.0]])[None].astype("f4")
    np.testing.assert_allclose(embodiment.normalise_rows(actor.body, state)[0, :3], -1, atol=1e-6)
    state[0, :3] = high
    np.testing.assert_allclose(embodiment.normalise_rows(actor.body, state)[0, :3], 1, atol=1e-6)


@pytest.mark.parametrize("name", ["frames", "state", "instruction"])
def test_all_three_of_its_senses_matter(actor, name):
    asked = query()
    changed = {
        "frames": 255 - asked.frames,
        "state": asked.state + 0.3,
        "instruction": tuple(metaworld_tasks.instruction("faucet-open", i) for i in range(4)),
    }
    other = dataclasses.replace(asked, **{name: changed[name]})
    assert np.abs(actor(other) - actor(asked)).max() > 1e-5


def test_halting_by_itself_it_does_what_the_student_does(run, actor):
    halting, seen = control.load(run, rows=4, effort=actors.Effort(halting=True)), actor.see(query())
    mask = jnp.ones(seen.video.shape[:3], bool)
    inputs = irp.Inputs(**{name: jnp.asarray(value) for name, value in vars(seen).items()}, frame_mask=mask)
    plenty, trust = jnp.full(4, 1e9), jnp.ones((4, 3))
    said = jax.jit(lambda i: actor.student(i, plenty, trust, jax.random.key(0)).features["actions"])(inputs)
    np.testing.assert_allclose(halting.chunks(seen), said, atol=1e-5)


def test_steps_limit_the_refinement(run, actor):
    hasty = control.load(run, rows=4, effort=actors.Effort(steps=0))
    seen = actor.see(query())
    assert np.abs(hasty.chunks(seen) - actor.chunks(seen)).max() > 1e-4
    assert control.digest(hasty) != control.digest(actor)


def test_the_digest_follows_the_weights(run, actor, make_acting):
    assert control.digest(actor) == control.digest(control.load(run, rows=8))
    other = control.load(runs.load([make_acting(1)])[0], rows=4)
    assert control.digest(other) != control.digest(actor)


def test_a_run_that_cannot_act_says_what_to_train(run, tmp_path):
    bare = dataclasses.replace(run, folder=pathlib.Path(tmp_path))
    with pytest.raises(runs.RunError, match="--stage end-to-end"):
        control.load(bare, rows=4)


def test_a_run_that_was_never_taught_to_act_from_zero_is_to_be_trained_again(run):
    old = dataclasses.replace(run, record=dataclasses.replace(run.record, objective=1))
    with pytest.raises(runs.RunError, match="train it again"):
        control.load(old, rows=4)


@pytest.fixture
def alien(actor):
    """The embodiment of a robot with another camera."""
    transform = dataclasses.replace(actor.body.transform, video_keys=("wrist",))
    return dataclasses.replace(actor.body, transform=transform)


def test_a_robot_that_is_not_the_simulators_is_refused_before_anything_acts(run, alien, monkeypatch):
    monkeypatch.setattr(control, "equipment", lambda run: (None, alien))
    with pytest.raises(EmbodimentError, match="wrist"):
        control.load(run, rows=4)


def test_outside_the_simulator_any_robot_can_be_asked(actor, alien):
    other = actors.StudentActor(actor.student, actor.words, alien, rows=4)
    seen = actor.see(query())
    np.testing.assert_array_equal(other.chunks(seen), actor.chunks(seen))
    with pytest.raises(EmbodimentError, match="wrist"):
        other.see(query())
