"""The tiny golden model and its cases."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bridge import embodiment
from bridge.observation import Observation
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot.model import Groot

torch.set_num_threads(1)  # the models are tiny: a second thread only waits, for long where the cores are shared
GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def _script(name: str):
    spec = importlib.util.spec_from_file_location(name, GOLDEN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A checkpoint folder with the tiny golden weights (read only)."""
    return _script("weights").make("tiny", tmp_path_factory.mktemp("golden") / "tiny")


@pytest.fixture(scope="session")
def golden_model(golden_folder: pathlib.Path) -> Groot:
    """The tiny golden model in float32."""
    return checkpoint.load(golden_folder, dtype=torch.float32)


@pytest.fixture(scope="session")
def golden_case() -> Callable[[str], dict[str, np.ndarray]]:
    """Arrays of a golden file by its name, e.g. "tiny_v1_224" or "chain"."""
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz"))


@pytest.fixture(scope="session")
def prepared(golden_case) -> Callable[[str], inputs.ModelInputs]:
    """Our inputs for a case's observation, from pixels and text."""

    def prepare(name: str) -> inputs.ModelInputs:
        case = golden_case(f"tiny_{name}")
        observation = Observation(case["video"], case["state_raw"], tuple(map(str, case["instruction"])), "arc")
        views = tuple(f"view{i}" for i in range(case["video"].shape[2]))
        body = embodiment.arc()
        body = dataclasses.replace(body, transform=dataclasses.replace(body.transform, video_keys=views))
        return inputs.prepare(observation, body, tokenizer.packaged(), tokens_per_tile=16)

    return prepare
