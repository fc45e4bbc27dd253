"""A small feature store whose teacher is a fixed random map of the pixels, so that there is something to learn."""

import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest

from bridge import arc, manifest, store

GRID, WIDTH = 3, 8
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
    """(folder, seed=0, poison=False) -> folder, a store of a few ARC-1 tasks; poison: one training frame has a NaN."""
    return write


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> pathlib.Path:
    """One such store for all tests; nothing writes into it."""
    return write(tmp_path_factory.mktemp("store"))


def write(folder: pathlib.Path, *, seed: int = 0, poison: bool = False) -> pathlib.Path:
    chosen = [(split, task) for split, count in TASKS.items() for task in large(arc.splits(1)[split])[:count]]
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
        extraction={"padding": "white"},
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
