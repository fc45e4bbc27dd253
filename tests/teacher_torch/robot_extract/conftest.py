"""A toy robot's dataset, a tiny random teacher for it, and what the teacher makes of it."""

import dataclasses
import pathlib

import numpy as np
import pytest
import torch

from bridge import embodiment as embodiments
from bridge import episodes
from bridge import transform as transforms
from bridge.lerobot_spec import Spec
from teacher_torch import (
    extract,
    provenance,
    robot_plan,
    robot_request,
    standin,
)
from teacher_torch.groot import checkpoint, inputs
from teacher_torch.groot import config as sizes
from teacher_torch.groot.model import Groot

SIDE, VIEWS, DRAWS = 32, ("side", "top"), 3
TEXTS = ("push the button", "open the very small drawer")
EPISODES = ((9, "train"), (6, "train"), (5, "validation"), (4, "test"))
FEW = ("--stride", "2", "--draws", str(DRAWS), "--group", "4", "--batch-size", "2")
SPEC = Spec(
    fps=20,
    videos={"top": (SIDE, SIDE), "side": (SIDE, SIDE)},
    state={"hand": 3, "gripper": 1},
    action={"delta": 3, "gripper": 1},
    labels={"objects": 6, "pixels": 8},
    robot_type="toybot",
    relative=("action.delta",),
)


def episode(number: int, length: int) -> dict:
    rng = np.random.default_rng(number)
    labels = {name: rng.random((length, width), np.float32) for name, width in SPEC.labels.items()}
    labels["objects"][:, 3:] = np.nan
    return {
        "frames": {key: rng.integers(0, 256, (length, SIDE, SIDE, 3), np.uint8) for key in SPEC.videos},
        "state": {key: rng.uniform(-1, 1, (length, width)).astype(np.float32) for key, width in SPEC.state.items()},
        "action": {key: rng.uniform(-1, 1, (length, width)).astype(np.float32) for key, width in SPEC.action.items()},
        "labels": labels,
    }


def record(folder: pathlib.Path, *, blank: bool = False) -> pathlib.Path:
    """A dataset of four episodes; blank: without what the labels say."""
    writer = episodes.create(folder, SPEC)
    for number, (length, split) in enumerate(EPISODES):
        given = episode(number, length)
        if blank:
            given["labels"] = {name: np.zeros_like(values) for name, values in given["labels"].items()}
        writer.add(**given, instruction=TEXTS[number % 2], extra={"split": split})
    writer.close()
    return folder


@dataclasses.dataclass(frozen=True)
class Toy:
    """What the tests know of the dataset and its teacher."""

    side: int = SIDE
    views: tuple[str, ...] = VIEWS
    draws: int = DRAWS
    texts: tuple[str, ...] = TEXTS
    episodes: tuple[tuple[int, str], ...] = EPISODES
    spec: Spec = SPEC

    def episode(self, number: int, length: int) -> dict:
        """What a writer is given of an episode, but for its instruction."""
        return episode(number, length)

    def record(self, folder: pathlib.Path, *, blank: bool = False) -> pathlib.Path:
        """The dataset once more."""
        return record(folder, blank=blank)


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> pathlib.Path:
    return record(tmp_path_factory.mktemp("robots") / "toy")


@pytest.fixture(scope="session")
def body(dataset) -> embodiments.Embodiment:
    """The views in another order than the dataset has them, a crop, chunks of 3 actions."""
    keys = ["state.hand", "state.gripper", "action.delta", "action.gripper"]
    transform = dataclasses.replace(
        transforms.official("toybot", VIEWS, keys), resize=SIDE, max_tiles=1, projector_id=1, horizon=3
    )
    return episodes.open(dataset).measure("toybot", transform)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, body) -> pathlib.Path:
    """A random teacher of four tokens a view, with tokenizer, embodiment and an account of its success."""
    folder = tmp_path_factory.mktemp("teachers") / "tiny"
    words = standin.cut_tokenizer(inputs.prompt(str([text]), [1, 1], 1) for text in TEXTS)
    config = sizes.GrootConfig(
        vision=sizes.VisionConfig(16, 32, 2, 2, patch_size=16, image_size=SIDE),
        language=sizes.LanguageConfig(32, 64, 2, 2, 1, head_dim=16, vocab_size=len(words.table)),
        head=sizes.HeadConfig(
            hidden_size=16,
            input_embedding_dim=16,
            output_dim=16,
            action_dim=6,
            state_dim=6,
            horizon=3,
            future_tokens=2,
            max_positions=32,
            embodiments=2,
            steps=2,
            dit=sizes.TransformerConfig(2, 2, 8),
            adapter=sizes.TransformerConfig(1, 2, 16),
        ),
        image_token_id=words.image_id,
    )
    torch.manual_seed(0)
    checkpoint.save(Groot(config), folder)
    words.save(folder)
    embodiments.save(folder / robot_request.METADATA, body)
    content = {"provenance": "random", "licence": "Apache-2.0", "measured": {"success.mean": 0.9}}
    provenance.write(folder, content)
    return folder


@pytest.fixture
def run(teacher, dataset, tmp_path):
    """(options...) -> exit code of an extraction with the tiny teacher into tmp_path / out."""

    def extracting(*options, out="store", data=dataset):
        given = ["--task", "robot", "--teacher", str(teacher), "--dataset", str(data), "--device", "cpu"]
        return extract.main([*given, "--out", str(tmp_path / out), *FEW, *options])

    return extracting


@pytest.fixture(scope="session")
def finished(teacher, dataset, tmp_path_factory):
    """A store with every feature, at full stride."""
    folder = tmp_path_factory.mktemp("stores") / "whole"
    known = robot_plan.features(sizes.from_folder(teacher), robot_plan.Shapes(4, 4, 2, (SIDE, SIDE), 2, True, 1, 1))
    given = ["--task", "robot", "--teacher", str(teacher), "--dataset", str(dataset), "--device", "cpu"]
    assert extract.main([*given, "--out", str(folder), *FEW, "--features", *known]) == 0
    return folder


@pytest.fixture
def changed(body, tmp_path):
    """(what, value) -> metadata file of an embodiment in which that is different."""

    def make(what, value):
        if what == "transform":
            altered = dataclasses.replace(body, transform=dataclasses.replace(body.transform, **value))
        else:
            altered = dataclasses.replace(body, statistics=body.statistics | {what: value(body.statistics[what])})
        embodiments.save(tmp_path / "other.json", altered)
        return tmp_path / "other.json"

    return make
