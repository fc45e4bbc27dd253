"""Starting from another run: its modules' weights, its tokenizer."""

import pathlib
from typing import Any

import jax
import numpy as np

from train import checkpoint, config, state, words

WORDS, EMBODIMENT = "words.json", "embodiment.json"


def words_of(run: str) -> words.Words | None:
    """The tokenizer of a run folder; None without a run, or where it has none."""
    path = pathlib.Path(run) / WORDS
    return words.Words.from_json(path.read_text(encoding="utf-8")) if run and path.is_file() else None


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
