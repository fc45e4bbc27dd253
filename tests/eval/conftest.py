"""The small store of the training tests, and a student trained on it for two steps by the real command."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from bridge import lanes, scene, store
from train import main as training

TRAIN_FIXTURES = pathlib.Path(__file__).parents[1] / "train" / "conftest.py"


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """Compiles each program once a session, in this process and in those it starts."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        jax.config.update("jax_compilation_cache_dir", folder)
        yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> pathlib.Path:
    """A store of ten ARC-1 tasks whose teacher is a fixed map of the pixels; nothing writes into it."""
    spec = importlib.util.spec_from_file_location("train_fixtures", TRAIN_FIXTURES)
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    return fixtures.write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def reader(stored) -> store.Reader:
    """That store, open."""
    return store.open(stored)


@pytest.fixture(scope="session")
def trained(stored, tmp_path_factory) -> pathlib.Path:
    """A run folder: two steps of the tiny preset."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    cheap = ["--share-every", "0", "--host-devices", "1"]
    arguments = ["--preset", "tiny", "--steps", "2", "--store", str(stored), "--out", str(out), *cheap]
    assert training.main(arguments) == 0
    return out


class FakeLanes:
    """Three simulators that need no simulator: even goals are solved at the first decision, odd ones never."""

    count = 3

    def __init__(self):
        self.closed, self._seeds = False, {}

    def close(self):
        self.closed = True

    def round(self, commands):
        return [self._do(lane, *command) for lane, command in commands]

    def _do(self, lane, kind, *rest):
        if kind == "reset":
            self._seeds[lane] = rest[1]
            return lanes.Moved(self._view(lane, solved=False), 0)
        actions, record = rest
        frames = np.stack([self._view(lane, solved=False).frames] * len(actions)) if record else None
        return lanes.Moved(self._view(lane, solved=self._seeds[lane] % 2 == 0), len(actions), frames)

    def _view(self, lane, *, solved):
        rng = np.random.default_rng(self._seeds[lane])
        frames = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
        state = rng.uniform(-1, 1, 4).astype(np.float32)
        return scene.View(frames, state, np.zeros((2, 3), np.float32), np.zeros((2, 2, 2), np.float32), solved)


@pytest.fixture
def fake_lanes():
    """A maker of simulators that need no simulator."""
    return FakeLanes
