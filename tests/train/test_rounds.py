"""Rounds of teacher labels, with fakes at the simulator's and the teacher's own boundary."""

import contextlib
import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest

from bridge import demonstrations, episodes, metaworld_tasks, scene, simulator
from train import config, rounds


def options(out, **changes):
    visits = config.Rounds(rounds=2, round_steps=5, round_episodes=1)
    launch = config.Launch(store="base", out=pathlib.Path(out))
    return config.Config(stage="end-to-end", preset="tiny", visits=visits, launch=launch, **changes)


@pytest.fixture
def trail(monkeypatch, tmp_path):
    """What was done, in order; runs are finished once they were trained."""
    done, over = [], set()

    def once(given, argv):
        done.append(("train", given))
        over.add(given.launch.out)
        return 0

    monkeypatch.setattr(rounds, "check", lambda options: None)
    monkeypatch.setattr(rounds, "unchanged", lambda here: None)
    monkeypatch.setattr(rounds, "finished", lambda folder: folder in over)
    monkeypatch.setattr(rounds, "visit", lambda options, run, folder, number: done.append(("visit", run)) or folder)
    monkeypatch.setattr(rounds, "label", lambda options, folder: done.append(("label", folder)) or f"{folder}/store")
    return done, over, once


def test_each_round_goes_on_from_the_one_before_with_all_that_was_visited(trail, tmp_path):
    done, _, once = trail
    assert rounds.train(options(tmp_path), [], once) == 0
    assert [kind for kind, _ in done] == ["train", "visit", "label", "train", "visit", "label", "train"]
    runs = [given for kind, given in done if kind == "train"]
    folders = [tmp_path / "rounds/0", tmp_path / "rounds/1", tmp_path]
    assert [given.launch.out for given in runs] == folders
    assert [given.init for given in runs] == ["", *map(str, folders[:2])]
    stores = tuple(f"{tmp_path / 'visits' / str(n)}/store" for n in (1, 2))
    assert [given.also for given in runs] == [(), stores[:1], stores]
    assert [given.recipe.steps for given in runs[1:]] == [5, 5]
    assert all(given.visits.rounds == 0 for given in runs)


def test_what_is_finished_is_not_trained_again(trail, tmp_path):
    done, over, once = trail
    over.add(tmp_path / "rounds/0")
    assert rounds.train(options(tmp_path), [], once) == 0
    assert [given.launch.out.name for kind, given in done if kind == "train"] == ["1", tmp_path.name]


def test_rounds_that_are_there_are_gone_on_with_only_when_asked(trail, tmp_path):
    _, _, once = trail
    (tmp_path / "rounds/0").mkdir(parents=True)
    with pytest.raises(config.ConfigError, match="--resume"):
        rounds.train(options(tmp_path), [], once)
    given = options(tmp_path)
    assert (
        rounds.train(dataclasses.replace(given, launch=dataclasses.replace(given.launch, resume=True)), [], once) == 0
    )


def test_a_finished_run_of_other_settings_is_no_part(tmp_path, monkeypatch):
    was = config.Config(stage="end-to-end", launch=config.Launch(out=tmp_path))
    monkeypatch.setattr(rounds.record, "read", lambda folder: types.SimpleNamespace(config=was))
    rounds.unchanged(dataclasses.replace(was, launch=config.Launch(store="moved", out=tmp_path)))
    with pytest.raises(config.ConfigError, match=r"init: '' -> 'before'.*another --out"):
        rounds.unchanged(dataclasses.replace(was, init="before"))


def test_an_interrupted_part_stops_the_rounds(trail, tmp_path):
    done, _, _ = trail
    assert rounds.train(options(tmp_path), [], lambda given, argv: 130) == 130
    assert not done


@pytest.mark.parametrize("stage", ["components"])
def test_rounds_need_a_student_that_acts_as_a_whole(stage, tmp_path):
    with pytest.raises(config.ConfigError, match="end-to-end"):
        rounds.check(dataclasses.replace(options(tmp_path), stage=stage))


def test_a_visit_is_a_dataset_with_one_row_per_decision(tmp_path, monkeypatch):
    asked = []

    def run(policy, jobs, *, conditions, shared):
        assert conditions.keep_views
        for job in jobs:
            asked.append(job)
            yield episode(job, decisions=3)

    class Farm(contextlib.AbstractContextManager):
        count = 2

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(rounds.simulator, "run", run)
    monkeypatch.setattr(rounds.lanes, "Lanes", Farm)
    monkeypatch.setattr(rounds.checkpoint, "load_student", lambda run: (None, None))
    said = [metaworld_tasks.find(task).phrasings[0] for task in ("drawer-open", "faucet-open")]
    held = types.SimpleNamespace(manifest=types.SimpleNamespace(extraction={"instructions": said}))
    monkeypatch.setattr(rounds.store, "open", lambda url: held)
    monkeypatch.setattr(rounds.warm, "words_of", lambda run: None)
    monkeypatch.setattr(rounds.embodiments, "load", lambda path: None)
    monkeypatch.setattr(rounds.embodiments, "save", lambda path, body: path.write_text("{}"))
    monkeypatch.setattr(rounds.actor, "StudentActor", lambda *_, rows: None)
    folder = rounds.visit(options(tmp_path), tmp_path / "run", tmp_path / "visits/1", 0)
    dataset = episodes.open(folder / "dataset")
    assert {each.length for each in dataset.episodes} == {3}
    assert [each.extra["task"] for each in dataset.episodes] == ["drawer-open", "faucet-open"], (
        "the store's tasks alone"
    )
    assert dataset.splits()["train"] == [each.index for each in dataset.episodes]
    assert json.loads((folder / "success.json").read_text())["success"] == 1.0
    np.testing.assert_allclose(dataset.rows(0)["state.hand"], np.full((3, 3), 0.5))
    used = {job.seed for job in asked}
    assert used.isdisjoint(metaworld_tasks.split_seeds("train", 1000))
    assert used.isdisjoint(metaworld_tasks.split_seeds("validation", 1000))
    rounds.visit(options(tmp_path), tmp_path / "run", tmp_path / "visits/1", 0)
    assert len(asked) == len(dataset.episodes), "a whole visit is not repeated"


def episode(job, *, decisions):
    frames = np.full((2, scene.SIZE, scene.SIZE, 3), 60, np.uint8)
    truth = np.zeros((2, 3), np.float32), np.zeros((2, 2, 2), np.float32)
    view = scene.View(frames, np.full(4, 0.5, np.float32), *truth, False)
    visited = (view,) * decisions
    return simulator.Episode(job.task, job.seed, "do it", True, 8 * decisions, decisions, None, visited)


def test_rounds_and_demonstrations_never_share_a_placement():
    most = metaworld_tasks.DEMONSTRATED
    with pytest.raises(ValueError, match=f"at most {most}"):
        demonstrations.jobs([], train=most + 1, validation=0, test=0, noise=0.0, pushes=0.0)
    assert demonstrations.jobs([], train=most, validation=0, test=0, noise=0.0, pushes=0.0) == []
    assert max(metaworld_tasks.split_seeds("train", most)) < min(rounds.placements(0, 8))
