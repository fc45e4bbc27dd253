"""The trained stand-ins that come with the project: they load, act as they did, and say where they came from."""

import numpy as np
import pytest
import torch

from bridge import embodiment as embodiments
from bridge import metaworld_tasks
from teacher_torch import provenance, request, standin
from teacher_torch.actor import Actor
from teacher_torch.groot import checkpoint


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    return standin.resolve("standin-robot", home=tmp_path_factory.mktemp("nothing"))


def test_it_is_the_packages_own_and_says_so(shipped):
    assert shipped.folder.parent == standin.SHIPPED
    assert (shipped.id, shipped.provenance, shipped.licence) == ("standin-robot", "stand-in", "Apache-2.0")


def test_its_account_tells_how_it_was_made_and_what_it_can_do(shipped):
    account = provenance.read(shipped.folder)
    assert account["commands"][-1].startswith("python -m teacher_torch.posttrain --task robot")
    assert {f"success.{task}" for task in metaworld_tasks.TASKS} <= set(account["measured"])
    assert account["settings"]["seed"] == 0
    assert account["hours"]


def test_it_is_small_enough_to_ship(shipped):
    assert sum(path.stat().st_size for path in shipped.folder.rglob("*") if path.is_file()) < 6e6


def test_its_actions_depend_on_what_it_sees_and_what_it_is_asked(shipped):
    model = checkpoint.load(shipped.folder, dtype=torch.float32)
    actor = Actor(model, embodiments.load(shipped.folder), request.load_tokenizer(None, shipped))
    rng, head = np.random.default_rng(0), model.config.head
    pictures = rng.integers(0, 255, (2, 2, 8, 8, 3), np.uint8).repeat(16, axis=2).repeat(16, axis=3)
    noise = torch.from_numpy(rng.normal(size=(1, head.horizon, head.action_dim))).float()

    def act(picture, words):
        return actor.chunks(pictures[[picture]], np.zeros((1, 1, 4), np.float32), (words,), noise)

    first = act(0, "open the drawer")
    assert first.shape == (1, 16, 4)
    assert np.isfinite(first).all()
    assert np.abs(act(1, "open the drawer") - first).max() > 0.01
    assert np.abs(act(0, "close the drawer") - first).max() > 0.01
    np.testing.assert_array_equal(act(0, "open the drawer"), first)
