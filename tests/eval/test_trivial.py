"""Policies that know next to nothing know exactly that."""

import numpy as np
import pytest

from bridge import embodiment, metaworld_tasks, simulator, store
from eval import trivial


def query(texts, seeds):
    blank = np.zeros((len(texts), 2, 4, 4, 3), np.uint8), np.zeros((len(texts), 4), np.float32)
    return simulator.Query(*blank, tuple(texts), np.array(seeds), np.zeros(len(texts), int))


def test_zeros_stay_and_random_moves_are_an_episodes_own():
    assert (trivial.zeros(query("ab", [1, 2])) == 0).all()
    one, other = trivial.random(query("ab", [1, 2])), trivial.random(query("ba", [2, 1]))
    np.testing.assert_array_equal(one, other[::-1])
    assert np.abs(one[0] - one[1]).max() > 0.1
    assert one.shape[1] >= simulator.EXECUTE


@pytest.fixture(scope="module")
def nearest(robots):
    return trivial.nearest(store.open(robots))


def test_the_mean_chunk_is_of_the_training_split_in_physical_units(robots, nearest):
    reader = store.open(robots)
    records = [r for r in reader.records("train") if reader.record("instruction_id", r)[0] == 1]
    shown = np.mean([reader.record("demonstration", r)[0] for r in records], axis=0)
    physical = nearest.chunks[nearest.instructions.index(reader.manifest.extraction["instructions"][1])]
    body = reader.embodiment().statistics["action"]["delta"]
    wanted = (shown[:, :3] + 1) / 2 * (body["max"] - body["min"]) + body["min"]
    np.testing.assert_allclose(physical[:, :3], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(physical[:, 3], shown[:, 3], rtol=1e-5)


def test_other_words_find_the_instruction_that_shares_most(nearest):
    for index, text in enumerate(nearest.instructions):
        assert nearest.nearest(text) == index
    assert nearest.instructions[nearest.nearest("please open the drawer")] == "open the drawer"


def test_it_neither_looks_nor_feels(nearest):
    asked = query([nearest.instructions[0]] * 2, [1, 2])
    asked.frames[1], asked.state[1] = 255, 1.0
    np.testing.assert_array_equal(*nearest(asked))


@pytest.fixture(scope="module")
def felt(robots):
    return trivial.by_state(store.open(robots))


def test_by_state_the_nearest_moments_of_the_task_are_averaged(robots, felt):
    reader = store.open(robots)
    body, task = reader.embodiment(), next(iter(felt.states))
    text = metaworld_tasks.TASKS[task].phrasings[0]
    asked = query([text], [1])
    asked.state[:] = embodiment.denormalise_rows(body, felt.states[task][:1], group="state")
    away = np.square(felt.states[task] - felt.states[task][0]).sum(axis=1)
    wanted = felt.chunks[task][np.argsort(away, kind="stable")[: trivial.ALIKE]].mean(axis=0)
    np.testing.assert_allclose(felt(asked)[0], wanted, atol=1e-5)
    asked.frames[:] = 255
    np.testing.assert_allclose(felt(asked)[0], wanted, atol=1e-5, err_msg="it never looks")


def test_by_state_knows_the_training_split_alone(robots, felt):
    reader = store.open(robots)
    assert sum(map(len, felt.states.values())) == len(reader.records("train"))


def test_by_state_what_nobody_demonstrated_is_not_moved_for(felt):
    assert (felt(query(["make tea"], [1])) == 0).all()
