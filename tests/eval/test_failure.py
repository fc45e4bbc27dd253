"""Signals that tell failures beforehand are found, noise is not, and the scores mean what they say."""

import dataclasses

import numpy as np
import pytest

from eval import failure, notebook


def episode(rng, success, *, telling):
    count = int(rng.integers(3, 9))
    sure = (0.9 if success else 0.6) if telling else 0.8
    return notebook.Noted(
        policy="sage", condition="normal", task="t", goal_seed=int(rng.integers(1 << 30)), student_seed=0,
        success=success, confidence=sure + 0.1 * rng.normal(size=count), energy=rng.uniform(size=(count, 3)),
        steps=np.ones((count, 3), int), atp=np.ones(count), trust=rng.uniform(0.8, 1, (count, 3)),
        views=np.ones((count, 2), bool),
    )  # fmt: skip


def episodes(rng, count, *, telling):
    return [episode(rng, bool(rng.random() < 0.8), telling=telling) for _ in range(count)]


@pytest.mark.parametrize(("telling", "low", "high"), [(True, 0.9, 1.0), (False, 0.35, 0.65)])
def test_it_finds_what_there_is_to_find(telling, low, high):
    rng = np.random.default_rng(0)
    judge = failure.fit(episodes(rng, 400, telling=telling))
    test = episodes(rng, 600, telling=telling)
    good = np.array([one.success for one in test])
    assert low <= failure.auroc(judge(test), good) <= high
    assert abs(judge(test).mean() - good.mean()) < 0.05


def test_length_and_end_of_an_episode_are_no_signal():
    rng = np.random.default_rng(0)
    one = next(e for e in iter(lambda: episode(rng, True, telling=True), None) if len(e.confidence) >= failure.FIRST)
    columns = ("confidence", "energy", "steps", "atp", "trust", "views")
    first = {name: getattr(one, name)[: failure.FIRST] for name in columns}
    longer = {name: np.concatenate([part, np.ones((7, *part.shape[1:]), part.dtype)]) for name, part in first.items()}
    np.testing.assert_allclose(
        failure.signals(dataclasses.replace(one, **longer)), failure.signals(dataclasses.replace(one, **first))
    )


def test_area_under_the_curve():
    good = np.array([True, True, False, False])
    assert failure.auroc(np.array([4.0, 3, 2, 1]), good) == 1
    assert failure.auroc(np.array([1.0, 2, 3, 4]), good) == 0
    assert failure.auroc(np.ones(4), good) == 0.5


def test_leaving_out_the_doubtful_cuts_failures():
    good = np.array([True] * 8 + [False] * 2)
    assert failure.cut(np.arange(10)[::-1].astype(float), good) == 1
    assert failure.cut(np.arange(10).astype(float), good) == pytest.approx(-0.25)


def test_a_line_that_a_kill_cut_short_is_dropped_before_the_next_is_written(tmp_path):
    path = tmp_path / notebook.FILE
    path.write_text('{"policy": "sage"}\n{"policy": "sa')
    notebook.Notebook(path)
    assert path.read_text() == '{"policy": "sage"}\n'
