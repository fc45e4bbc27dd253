"""Checkpoints of a run: `last/` and `best/`, each holding its newest complete state. All of Orbax is here."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from student_jax.student import Student
from train import record, stages, state

TRASH = ".trash"


class CheckpointError(ValueError):
    """A checkpoint is missing, unreadable, or not of the shape asked for."""


class Slot:
    """One folder that keeps the newest of the checkpoints saved into it, as `folder/STEP`.

    Saving returns once the arrays are copied off the device, so the caller may donate them; writing goes on in a
    thread. A checkpoint counts once Orbax has finalised it, and older ones go only then: killed at any moment, the
    folder holds a complete one if it ever did.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.absolute()
        self._writing: tuple[int, Any] | None = None

    def save(self, step: int, tree: Any, progress: dict[str, Any]) -> None:
        """Starts writing a pytree of arrays and a JSON `progress`; waits for the save before it.

        A step that is already there is kept: training is deterministic, so it holds the same numbers.
        """
        self.wait()
        if step in _complete(self.folder):
            return
        if jax.process_index() == 0:  # the others start to write only once it has
            _discard(self.folder, lambda name: name.partition(".")[0] == str(step))
        response = ocp.save_async(self.folder / str(step), named_leaves(tree), custom_metadata=progress)
        self._writing = (step, response)

    def wait(self) -> None:
        """Blocks until the save under way is complete, then drops what it supersedes. Raises what the save raised."""
        if self._writing is None:
            return
        step, response = self._writing
        self._writing = None
        response.result()
        if jax.process_index() == 0:
            _discard(self.folder, lambda name: name != str(step))

    def newest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return max(_complete(self.folder), default=None)

    def progress(self) -> dict[str, Any]:
        """What was saved beside the newest checkpoint; empty where there is none."""
        step = self.newest()
        return {} if step is None else _metadata(self.folder / str(step)).custom_metadata or {}

    def load(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """The newest checkpoint as (tree, progress).

        `like`: pytree of jax.ShapeDtypeStruct (with shardings, or none for the default device); it may be part of what
        was saved. A leaf that is missing or has another shape or dtype is an error that names it.
        """
        step = self.newest()
        if step is None:
            raise CheckpointError(f"no complete checkpoint in {self.folder}; train with `python -m train.main --out`")
        path = self.folder / str(step)
        saved = _metadata(path)
        wanted = named_leaves(like)
        _compare(path, saved.metadata, wanted)
        leaves = ocp.load(path, _complete_request(saved.metadata, wanted))
        treedef = jax.tree.structure(like)
        return jax.tree.unflatten(treedef, [leaves[name] for name in wanted]), saved.custom_metadata or {}


def load_student(
    run: str | pathlib.Path, which: Literal["best", "last"] = "best", weights: Literal["ema", "params"] = "ema"
) -> tuple[Student, record.Record]:
    """A trained student on the default device, and the record of its run; `ema` are the averaged weights.

    Raises ConfigError where the folder holds no run and CheckpointError where it holds no such checkpoint.
    """
    found = record.read(pathlib.Path(run))
    abstract = nnx.eval_shape(lambda: Student(found.student, rngs=nnx.Rngs(0)))
    stage = stages.select(found.config, task(found))
    graph, params, frozen = state.partition(abstract, stage.trains)
    tree, _ = Slot(pathlib.Path(run) / which).load({weights: params, "frozen": frozen})
    return state.merge(graph, tree[weights], tree["frozen"]), found


def task(found: record.Record) -> str:
    """What a run's store is of."""
    return "robot" if found.student.actions else "families" if found.teacher["id"] == "none" else "arc"


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by their path, "params/vision/blocks/0/kernel", in the tree's own order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def _complete_request(saved: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The whole saved tree, as Orbax wants it: a placeholder where nothing was asked for, one device where none is."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    placed = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here) for name, x in wanted.items()}
    return {name: placed.get(name, ocp.PLACEHOLDER) for name in saved}


def _metadata(path: pathlib.Path) -> Any:
    try:
        return ocp.metadata(path)
    except Exception as error:  # Orbax raises many kinds, and each means that this folder cannot be read
        cause = error.__cause__ or error
        raise CheckpointError(f"{path} cannot be read ({cause}); delete it and train again") from error


def _compare(path: pathlib.Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Orbax would cast a dtype silently and hide a mismatch in a cause, so both are compared here."""
    problems = [f"{name}: not in the checkpoint" for name in wanted if name not in saved]
    for name in wanted.keys() & saved.keys():
        has, wants = (tuple(saved[name].shape), np.dtype(saved[name].dtype)), (wanted[name].shape, wanted[name].dtype)
        if has != (tuple(wants[0]), np.dtype(wants[1])):
            problems.append(f"{name}: saved {has[1]}{list(has[0])}, expected {wants[1]}{list(wants[0])}")
    if problems:
        raise CheckpointError(f"{path} does not fit this student:\n  " + "\n  ".join(sorted(problems)))


def _complete(folder: pathlib.Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit() and ocp.is_orbax_checkpoint(path)]


def _discard(folder: pathlib.Path, unwanted: Callable[[str], bool]) -> None:
    """Removes children by renaming first, so that one half removed is never taken for a checkpoint."""
    for leftover in folder.glob(f"{TRASH}-*"):
        shutil.rmtree(leftover)
    for path in [path for path in folder.glob("*") if unwanted(path.name)]:
        shutil.rmtree(path.rename(folder / f"{TRASH}-{path.name}"))
