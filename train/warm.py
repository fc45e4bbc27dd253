"""Starting from another run: its modules' weights and constants, its tokenizer, for the robot that it knows."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from bridge import shards
from train import checkpoint, config, record, state, words

WORDS, EMBODIMENT = "words.json", "embodiment.json"


def words_of(run: str) -> words.Words | None:
    """The tokenizer of a run folder; None without a run, or where it has none."""
    path = pathlib.Path(run) / WORDS
    return words.Words.from_json(path.read_text(encoding="utf-8")) if run and path.is_file() else None


def check(run: str, reader: Any, *, trains: str | None) -> None:
    """ConfigError where a run is for another robot than the store: statistics, keys or how its views are cut.

    What is kept of such a run would be wrong: limits of the actions, bases, what a normalised action means. A Control
    that is trained alone has its own, on vision and language as they are, so it may be for another robot.
    """
    if not run or reader.manifest.task != "robot":
        return
    theirs = pathlib.Path(run) / EMBODIMENT
    if not theirs.is_file():
        record.read(pathlib.Path(run))
        raise config.ConfigError(f"--init {run}: it has no {EMBODIMENT}, so it is for no robot: start without --init")
    changes = differences(json.loads(theirs.read_bytes()), json.loads(shards.read(reader.files, EMBODIMENT) or b"{}"))
    if changes and trains != "control":
        raise config.ConfigError(
            f"--init {run} is for another robot than --store ({'; '.join(changes)}), and its action limits and bases "
            "would be kept: train a new Control on its vision and language (--stage components --component control "
            f"--init {run}), or start without --init; if it is the same robot, extract with --metadata {theirs}"
        )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What two embodiment files of one tag each do not share, in words."""
    if list(old) != list(new):
        return [f"{', '.join(old)} -> {', '.join(new)}"]
    return [
        f"{tag}: other {name}"
        for tag in old
        for name in old[tag] | new[tag]
        if old[tag].get(name) != new[tag].get(name)
    ]


def constants(
    frozen: state.Tree, measured: dict[state.Path, Any], run: str, *, trains: str | None
) -> dict[state.Path, Any]:
    """Which constants of the weights to set from the training split.

    Without a run all. A component trained alone has its own; other modules keep those that they were trained with, but
    where all are trained the actions may go as far as either the run or this store went.
    """
    if not run:
        return measured
    if trains is not None:
        return {path: value for path, value in measured.items() if path[0] == trains}
    wider = {("control", "low"): np.minimum, ("control", "high"): np.maximum}
    return {
        path: wider[path](measured[path], np.asarray(frozen[path[0]][path[1]])) for path in wider if path in measured
    }


def orchestrated(run: str) -> bool:
    """Whether a run's student has an H-module; False without a run."""
    return bool(run) and record.read(pathlib.Path(run)).student.h_module is not None


def start(params: state.Tree, frozen: state.Tree, run: str, *, trains: str | None) -> tuple[state.Tree, state.Tree]:
    """Fresh leaves, replaced by the best averaged ones of a run for every module that both have.

    trains: the component that is trained, None for all. It may be of another size there, such as a control for another
    action space: then it stays fresh. Any other difference in size is a ConfigError.
    """
    if not run:
        return params, frozen
    student, _ = checkpoint.load_student(run)
    _, theirs, fixed = state.partition(student, lambda path: True)
    known = checkpoint.named_leaves(theirs) | checkpoint.named_leaves(fixed)
    mine = checkpoint.named_leaves(params) | checkpoint.named_leaves(frozen)
    clash = [name for name, leaf in mine.items() if name in known and known[name].shape != leaf.shape]
    if foreign := [name for name in clash if name.split("/")[0] != trains]:
        raise config.ConfigError(f"--init {run}: {foreign[:4]} differ in size; use the preset and a store like there")
    fresh = f"{trains}/" if clash else None

    def take(tree: state.Tree) -> Any:
        named = checkpoint.named_leaves(tree)
        kept = {name for name in named if name in known and not (fresh and name.startswith(fresh))}
        leaves = [np.asarray(known[name]) if name in kept else leaf for name, leaf in named.items()]
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    return take(params), take(frozen)
