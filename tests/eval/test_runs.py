"""Which runs may be reported together, and against which store."""

import dataclasses
import os

import pytest

from eval import runs
from train import config


@pytest.fixture
def loaded(trained):
    return runs.load([trained])[0]


def test_a_run_knows_its_preset_and_seed(loaded):
    assert (loaded.preset, loaded.seed) == ("tiny", 0)


def test_the_newest_run_is_the_one_whose_best_changed_last(tmp_path):
    for age, name in enumerate(("new", "old")):
        (tmp_path / name / "best").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        os.utime(tmp_path / name / "best", (1e9 - age, 1e9 - age))
    assert runs.newest(tmp_path) == tmp_path / "new"


def test_no_run_names_the_command(tmp_path):
    with pytest.raises(runs.RunError, match=r"python -m train\.main"):
        runs.newest(tmp_path)


def test_the_same_seed_twice_is_refused(trained):
    with pytest.raises(runs.RunError, match="seed 0"):
        runs.load([trained, trained])


def test_runs_of_different_teachers_are_refused(trained, monkeypatch):
    records = iter([runs.record.read(trained)] * 2)

    def read(folder):
        found = next(records)
        return found if folder == trained else dataclasses.replace(found, teacher={"id": "another"})

    monkeypatch.setattr(runs.record, "read", read)
    monkeypatch.setattr(runs.checkpoint, "load_student", lambda folder, which: (None, None))
    with pytest.raises(runs.RunError, match="one by one"):
        runs.load([trained, trained.parent / "other"])


def test_seeds_may_go_on_from_seeds_and_from_what_those_visited(loaded):
    def going_on(seed):
        changed = dataclasses.replace(loaded.record.config, seed=seed, init=f"runs/{seed}", also=(f"visits/{seed}",))
        return dataclasses.replace(loaded, record=dataclasses.replace(loaded.record, config=changed))

    assert runs.recipe(going_on(0)) == runs.recipe(going_on(1))
    assert runs.recipe(going_on(0)) != runs.recipe(loaded)


def test_runs_of_another_recipe_are_no_seeds_of_one_setting(trained, loaded, monkeypatch):
    changed = dataclasses.replace(loaded.record.config, loss=config.LossWeights(tokens=0.0), seed=1)
    other = dataclasses.replace(loaded.record, config=changed)
    monkeypatch.setattr(runs.record, "read", lambda folder: loaded.record if folder == trained else other)
    monkeypatch.setattr(runs.checkpoint, "load_student", lambda folder, which: (None, None))
    with pytest.raises(runs.RunError, match=r"loss\.tokens: 1\.0 -> 0\.0.*--control"):
        runs.load([trained, trained.parent / "other"])


def test_a_store_of_another_teacher_is_refused(loaded, reader):
    runs.check_store(loaded, reader, "store")
    other = dataclasses.replace(loaded.record, teacher=loaded.record.teacher | {"digest": "another"})
    with pytest.raises(runs.RunError, match="digest 'another' there, 'seed 0' in the store"):
        runs.check_store(dataclasses.replace(loaded, record=other), reader, "store")
