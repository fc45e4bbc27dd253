import dataclasses
import importlib.util

import numpy as np
import pytest

from bridge import demonstration, lanes, metaworld_tasks, scene, simulator

pytestmark = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="metaworld is in the extra sim")


class Mirror:
    """A policy that pushes the hand one way and notes what it was asked."""

    def __init__(self, direction=(0.0, 1.0, 0.0)):
        self.queries, self.direction = [], direction

    def __call__(self, query):
        self.queries.append(query)
        return np.tile(np.float32([*self.direction, 0.0]), (len(query.seed), 16, 1))


@pytest.fixture(scope="module")
def shared():
    with lanes.Lanes(1, 2) as farm:
        yield farm


@pytest.fixture(scope="module")
def stage():
    with scene.Scene(size=64) as one:
        yield one


def see(stage, task, seed):
    stage.reset(task, seed)
    return stage.view()


def test_a_seed_fixes_the_placement_whatever_came_before(stage):
    first = see(stage, "drawer-open", 5)
    stage.step(np.ones(4))
    see(stage, "drawer-open", 6)
    again = see(stage, "drawer-open", 5)
    for name in ("frames", "state", "objects", "pixels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_seeds_place_the_object_across_the_whole_span(stage):
    x = np.array([see(stage, "button-press", seed).objects[1, 0] for seed in range(12)])
    assert np.ptp(x) > 0.2
    assert (np.abs(x) <= metaworld_tasks.SPAN + 0.02).all()


def test_a_blind_scene_shows_the_same_picture_wherever_the_object_is(stage):
    shown = []
    for seed in (2_000_000, 2_000_001):
        stage.reset("drawer-open", seed, blind=True)
        shown.append(stage.view())
        stage.step(np.ones(4))
        np.testing.assert_array_equal(stage.view().frames, shown[-1].frames)
    np.testing.assert_array_equal(shown[0].frames, shown[1].frames)
    assert np.abs(shown[0].objects - shown[1].objects).max() > 0.01
    assert np.abs(see(stage, "drawer-open", 2_000_000).frames - shown[0].frames.astype(int)).max() > 30


def test_only_the_instruction_tells_the_look_alike_pair_apart(stage):
    one, other = (see(stage, task, 3) for task in metaworld_tasks.LOOK_ALIKE)
    different = np.abs(one.frames.astype(int) - other.frames).max(-1) > 8
    assert different.mean() < 0.002
    assert not set(metaworld_tasks.TASKS["faucet-open"].phrasings) & set(
        metaworld_tasks.TASKS["faucet-close"].phrasings
    )


def test_projected_objects_follow_the_camera(stage):
    """The hand's white fingers lie where the projection says the hand is."""
    view = see(stage, "faucet-open", 1)
    assert ((view.pixels > 0) & (view.pixels < 1)).all()
    stage.step(np.array([1.0, 0, 0, 0]))
    for _ in range(4):
        stage.step(np.array([1.0, 0, 0, 0]))
    moved = stage.view().pixels[:, 0] - view.pixels[:, 0]
    assert moved[0, 1] > 0.03, "hand to the right: to the right from above"


def test_nothing_but_hand_and_gripper_is_in_the_state(stage):
    a, b = see(stage, "drawer-close", 1), see(stage, "drawer-close", 2)
    np.testing.assert_allclose(a.state, b.state, atol=1e-3)
    assert np.abs(a.objects[1] - b.objects[1]).max() > 0.01


@pytest.mark.parametrize("task", ["drawer-close", "faucet-open"])
def test_the_expert_solves_the_task_in_spite_of_disturbances(stage, task):
    demo = demonstration.perform(stage, demonstration.Job(task, 11))
    assert demo.success
    assert len(demo.frames) == len(demo.state) == len(demo.action) == len(demo.pixels)
    assert np.abs(demo.action).max() <= 1


def test_episodes_are_paired_by_seed_and_do_not_depend_on_their_company(shared):
    alone = simulator.rollout(Mirror(), "drawer-close", [7], conditions=simulator.Conditions(limit=16), shared=shared)
    jobs = [simulator.Job("button-press", 1), simulator.Job("drawer-close", 7), simulator.Job("faucet-open", 2)]
    many = list(simulator.run(Mirror(), jobs, conditions=simulator.Conditions(limit=16), shared=shared))
    assert [episode.task for episode in many] == ["button-press", "drawer-close", "faucet-open"]
    assert dataclasses.replace(many[1], instruction="") == dataclasses.replace(alone[0], instruction="")


def test_a_policy_sees_nothing_but_frames_state_and_words(shared):
    policy = Mirror()
    conditions = simulator.Conditions(limit=8, record=True)
    (episode,) = simulator.rollout(policy, "faucet-open", [4], conditions=conditions, shared=shared)
    query = policy.queries[0]
    assert {field.name for field in dataclasses.fields(query)} == {"frames", "state", "instruction", "seed", "decision"}
    assert query.frames.shape == (2, 2, scene.SIZE, scene.SIZE, 3)
    assert query.state.shape == (2, 4)
    assert len(episode.frames) == episode.steps + 1


def test_disturbed_cameras_change_what_is_seen_and_nothing_else(shared):
    plain, noisy, dark = Mirror(), Mirror(), Mirror()
    for policy, conditions in (
        (plain, simulator.Conditions(limit=8)),
        (noisy, simulator.Conditions(limit=8, camera_noise=20.0)),
        (dark, simulator.Conditions(limit=8, dropped=1.0)),
    ):
        simulator.rollout(policy, "drawer-open", [1], conditions=conditions, shared=shared)
    assert np.abs(plain.queries[0].frames.astype(int) - noisy.queries[0].frames).mean() > 5
    assert dark.queries[0].frames.max() == 0
    np.testing.assert_array_equal(plain.queries[0].state, noisy.queries[0].state)


SHORT = np.zeros((2, simulator.EXECUTE - 1, 4))


@pytest.mark.parametrize("chunk", [SHORT, np.zeros((2, 16, 3)), np.full((2, 16, 4), np.nan)])
def test_a_policy_that_answers_wrongly_is_refused(shared, chunk):
    with pytest.raises(ValueError, match="policy"):
        simulator.rollout(lambda query: chunk, "drawer-open", [1], shared=shared)


def test_an_unknown_task_lists_the_known_ones(shared):
    with pytest.raises(ValueError, match="drawer-open"):
        simulator.rollout(Mirror(), "make-tea", [1], shared=shared)
