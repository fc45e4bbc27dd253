"""Recording demonstrations, with a fake at the simulator's own boundary."""

import contextlib

import numpy as np
import pytest

from bridge import demonstration, demonstrations, episodes, metaworld_tasks, scene


def made(job):
    """A demonstration of 5 actions that its seed determines."""
    rng = np.random.default_rng(job.seed)
    n, views, objects = 5, len(scene.CAMERAS), len(scene.OBJECTS)
    return demonstration.Demonstration(
        job,
        np.full((n, views, scene.SIZE, scene.SIZE, 3), 90, np.uint8),
        rng.normal(size=(n, 4)).astype(np.float32),
        rng.uniform(-1, 1, (n, 4)).astype(np.float32),
        rng.normal(size=(n, objects, 3)).astype(np.float32),
        rng.uniform(size=(n, views, objects, 2)).astype(np.float32),
        True,
    )


@pytest.fixture
def farm(monkeypatch):
    """Jobs that were performed; `stop` after so many."""

    class Farm(contextlib.AbstractContextManager):
        done, stop = [], None

        def __init__(self, processes, scenes):
            pass

        def __exit__(self, *_):
            pass

        def demonstrations(self, jobs):
            for job in jobs:
                if Farm.stop == len(Farm.done):
                    raise KeyboardInterrupt
                Farm.done.append(job)
                yield made(job)

    monkeypatch.setattr(demonstrations.lanes, "Lanes", Farm)
    return Farm


def command(out, *extra):
    what = ("--tasks", "drawer-open", "faucet-close", "--episodes", "2", "--validation", "1", "--test", "0")
    return demonstrations.main(["--out", str(out), *what, *extra])


def test_the_dataset_says_who_was_asked_what_and_where_it_was(farm, tmp_path):
    assert command(tmp_path / "data") == 0
    dataset = episodes.open(tmp_path / "data")
    dataset.check()
    assert {name: len(found) for name, found in dataset.splits().items()} == {"train": 4, "validation": 2, "test": 0}
    job = farm.done[0]
    assert dataset.episodes[0].instruction == metaworld_tasks.instruction(job.task, job.seed)
    rows, demo = dataset.rows(0), made(job)
    np.testing.assert_array_equal(rows["state.hand"], demo.state[:, :3])
    np.testing.assert_array_equal(rows["action.delta"], demo.action[:, :3])
    np.testing.assert_array_equal(rows["label.pixels"].reshape(demo.pixels.shape), demo.pixels)
    assert dataset.embodiment.tag == "metaworld"
    assert not dataset.embodiment.modalities["action"]["delta"]["absolute"]


def test_an_interrupted_recording_goes_on_and_can_be_made_longer(farm, tmp_path):
    farm.stop = 3
    with pytest.raises(KeyboardInterrupt):
        command(tmp_path / "data")
    farm.stop, farm.done = None, []
    assert command(tmp_path / "data") == 0
    assert [job.seed for job in farm.done] == [1, 1_000_000, 1_000_000]
    assert len(episodes.open(tmp_path / "data").episodes) == 6
    farm.done = []
    assert command(tmp_path / "data", "--episodes", "3") == 0
    assert [(job.task, job.seed) for job in farm.done] == [("drawer-open", 2), ("faucet-close", 2)]


def test_a_dataset_of_other_disturbances_is_not_mixed_in(farm, tmp_path, capsys):
    assert command(tmp_path / "data") == 0
    assert command(tmp_path / "data", "--noise", "0.9") == 2
    assert "recorded with {'noise': 0.2, 'pushes': 0.05}, not {'noise': 0.9" in capsys.readouterr().err


def test_splits_never_share_a_placement():
    work = demonstrations.jobs(["drawer-open"], train=5, validation=5, test=5, noise=0.0, pushes=0.0)
    assert len({job.seed for _, job in work}) == 15
    assert [split for split, _ in work] == [*["train"] * 5, *["validation"] * 5, *["test"] * 5]


def test_an_unknown_task_is_one_line(farm, tmp_path, capsys):
    assert demonstrations.main(["--out", str(tmp_path / "x"), "--tasks", "make-tea"]) == 2
    assert "drawer-open" in capsys.readouterr().err
