"""A small feature store whose teacher is a fixed random map of the pixels, so that there is something to learn."""

import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest

from bridge import arc, manifest, store

GRID, WIDTH, STRIDE = 3, 8, 2
TASKS = {"train": 6, "validation": 2, "test": 2}


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """Compiles quickly, and each program once a session, in this process and in those it starts."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_disable_most_optimizations": True,
    }
    jax.devices()  # starts the eight devices, before a command asks for fewer
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name.upper(), str(value))
            jax.config.update(name, value)
        yield
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def make_store():
    """(folder, seed=0, poison=False, version=1) -> folder, a store of a few tasks of ARC-AGI-`version`; poison: one
    training frame has a NaN."""
    return write


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> pathlib.Path:
    """One such store for all tests; nothing writes into it."""
    return write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def robot_stored(tmp_path_factory) -> pathlib.Path:
    """A store of a robot that reaches for a dot, as told: the teacher's chunk is a function of dot, words and noise."""
    return write_robot(tmp_path_factory.mktemp("robot"))


@pytest.fixture(scope="session")
def make_robot_store():
    """(folder, horizon=4, tag="dot") -> folder, such a store with chunks of another length, of another robot."""
    return write_robot


def write_robot(
    folder: pathlib.Path, *, records: int = 40, horizon: int = 4, draws: int = 4, tag: str = "dot"
) -> pathlib.Path:
    word = np.arange(records) % 2
    writer = store.create(folder, robot_manifest(word, horizon=horizon, draws=draws))
    writer.write(0, robot_arrays(word, horizon=horizon, draws=draws))
    (folder / "embodiment.json").write_text(json.dumps({tag: {"statistics": {}}}))
    return folder


def robot_manifest(word: np.ndarray, *, horizon: int, draws: int) -> manifest.Manifest:
    """Of records that are asked one of two things each: word 0 or 1."""
    records, chunk = len(word), (horizon, 2)
    wide = manifest.Feature((WIDTH,), "bfloat16", "image")
    record = lambda *shape, kind="float32": manifest.Feature(shape, kind, "record")  # noqa: E731
    teacher = manifest.Teacher(
        id="tiny-teacher", digest="robot", provenance="random", licence="none", tile=32, grid=4, width=WIDTH,
        max_tiles=1, columns=1, rows=1, thumbnail=False, layers=1,
    )  # fmt: skip
    return manifest.make(
        "robot",
        teacher,
        features={
            "state": record(3),
            "demonstration": record(*chunk),
            "noise": record(draws, *chunk),
            "actions": record(draws, *chunk),
            "text_features": record(WIDTH),
            "instruction_id": record(kind="int32"),
            "pixels": record(2, 1, 2),
            "frames": manifest.Feature((32, 32, 3), "uint8", "frame"),
            "image_tokens": wide,
            "fused_tokens": wide,
            "vision_attention": manifest.Feature((), "float32", "image"),
            "saliency": manifest.Feature((), "float32", "image"),
            "confidence": record(),
        },
        counts={"record": [1] * records, "frame": [2] * records, "image": [32] * records},
        records={
            "episode": [index // 2 for index in range(records)],
            "row": [index % 2 * STRIDE for index in range(records)],
            "instruction": word.tolist(),
            "split": ["train"] * (records - 12) + ["validation"] * 8 + ["test"] * 4,
        },
        extraction={"instructions": ["reach the dot", "flee from the dot"], "stride": STRIDE},
    )


def robot_arrays(word: np.ndarray, *, horizon: int, draws: int) -> dict[str, np.ndarray]:
    """A dot at a random place in both views, and what the teacher makes of it."""
    rng, records = np.random.default_rng(0), len(word)
    place = rng.uniform(0.1, 0.9, (records, 2))
    frames = np.full((records, 2, 32, 32, 3), 30, np.uint8)
    for picture, (row, column) in zip(frames, (place * 32).astype(int), strict=True):
        picture[:, max(row - 3, 0) : row + 3, max(column - 3, 0) : column + 3] = 240
    noise = rng.normal(size=(records, draws, horizon, 2))
    aim = np.where(word[:, None] == 0, place - 0.5, 0.5 - place)
    actions = aim[:, None, None] + 0.1 * noise
    tokens = np.repeat(frames.reshape(records * 2, 4, 8, 4, 8, 3).mean((2, 4, 5)).reshape(-1, 1) / 255, WIDTH, 1)
    tokens = (tokens * np.geomspace(1, 0.2, WIDTH) + 0.05 * rng.normal(size=tokens.shape)).astype(ml_dtypes.bfloat16)
    arrays = {
        "state": rng.normal(size=(records, 3)), "demonstration": actions[:, 0], "noise": noise, "actions": actions,
        "text_features": np.outer(word - 0.5, np.ones(WIDTH)), "pixels": np.repeat(place[:, None, None], 2, 1),
        "vision_attention": np.full(records * 32, 1 / 16), "saliency": brightness(tokens),
        "confidence": rng.uniform(0.5, 1, records),
    }  # fmt: skip
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    arrays |= {"frames": frames.reshape(-1, 32, 32, 3), "instruction_id": word.astype(np.int32)}
    return arrays | {"image_tokens": tokens, "fused_tokens": tokens}


def brightness(tokens: np.ndarray) -> np.ndarray:
    """Of the tokens [n * 32, d] of both views, as a distribution over each record's."""
    bright = np.maximum(tokens.astype(np.float64)[:, 0].reshape(-1, 32) - 0.15, 1e-3)
    return (bright / bright.sum(axis=1, keepdims=True)).reshape(-1)


def write(folder: pathlib.Path, *, seed: int = 0, poison: bool = False, version: int = 1) -> pathlib.Path:
    chosen = [(split, task) for split, count in TASKS.items() for task in large(arc.splits(version)[split])[:count]]
    records = [(split, record) for split, task in chosen for record in arc.records(task)]
    counts = np.array([len(record.cells) for _, record in records])
    teacher = manifest.Teacher(
        id="tiny-teacher", digest=f"seed {seed}", provenance="random", licence="none", tile=24, grid=GRID, width=WIDTH,
        max_tiles=1, columns=1, rows=1, thumbnail=False, layers=1,
    )  # fmt: skip
    made = manifest.make(
        "arc",
        teacher,
        features={
            "cells": manifest.Feature((30, 30), "uint8", "frame"),
            "image_tokens": manifest.Feature((WIDTH,), "bfloat16", "image"),
            "vision_attention": manifest.Feature((), "float32", "image"),
        },
        counts={"frame": counts, "image": counts * GRID**2},
        records={
            "task": [record.task for _, record in records],
            "pair": [record.pair for _, record in records],
            "kind": [record.kind for _, record in records],
            "split": [split for split, _ in records],
        },
        extraction={"padding": "white", "dataset": f"arc{version}"},
        group_records=16,
    )
    writer = store.create(folder, made)
    for group in writer.pending():
        first, last = made.groups[group]
        cells = np.concatenate([record.cells for _, record in records[first:last]])
        arrays = features(cells, seed)
        arrays["vision_attention"][5] = np.nan if poison and group == 0 else arrays["vision_attention"][5]
        writer.write(group, {"cells": cells, **arrays})
    return folder


def large(tasks: tuple[arc.Task, ...]) -> list[arc.Task]:
    """Tasks that fill much of the canvas, so that their frames differ."""
    return [task for task in tasks if min(task.train[0].input.shape) >= 14]


def features(cells: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Tokens: tanh of a random map of each patch's mean colour. Attention: how much of a patch is not canvas."""
    rng = np.random.default_rng(seed)
    side = arc.SIDE // GRID
    pixels = arc.render(cells, pixels=1).reshape(-1, GRID, side, GRID, side, 3) / 255.0
    colour = pixels.mean(axis=(2, 4)).reshape(-1, GRID**2, 3)
    tokens = np.tanh(2 * (colour - 0.5) @ rng.normal(size=(3, WIDTH))) * np.geomspace(1, 0.2, WIDTH) + 1.0
    inside = 0.1 + (cells.reshape(-1, GRID, side, GRID, side) != arc.OUTSIDE).mean(axis=(2, 4)).reshape(-1, GRID**2)
    attention = inside / inside.sum(axis=1, keepdims=True)
    return {
        "image_tokens": tokens.reshape(-1, WIDTH).astype(ml_dtypes.bfloat16),
        "vision_attention": attention.reshape(-1).astype(np.float32),
    }
