"""What the teacher computes and what is written of it: the same, or (`--profile compact`) coded tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from bridge import batches, blocks, compaction, shards, store
from bridge.coding import Coding
from bridge.compaction import Choices
from bridge.manifest import Manifest, StoreError
from teacher_torch import groups
from teacher_torch.groot.model import Groot
from teacher_torch.groups import Arrays, Source


@dataclasses.dataclass(frozen=True)
class Packing:
    """computed: the exact manifest, by which records are batched; written: the store's; codings: empty if exact."""

    computed: Manifest
    written: Manifest
    codings: Mapping[str, Coding] = dataclasses.field(default_factory=dict)
    choices: Choices | None = None

    def pack(self, arrays: Arrays) -> Arrays:
        """A group's arrays as they are written."""
        if self.choices is None:
            return arrays
        return compaction.encode(self.computed, arrays, self.codings, self.choices)


def expect(plan: Manifest, choices: Choices | None) -> Manifest:
    """The manifest of what will be written at most, before anything is computed."""
    if choices is None:
        return plan
    grid, empty = plan.teacher.grid, {}
    for name in compaction.wide(plan, choices):
        values = plan.features[name].shape[0] * blocks.side(grid) ** 2
        shape = (min(choices.components, values), values)
        empty[name] = Coding(np.zeros(values, np.float32), np.zeros(shape, np.float32), 1.0, grid)
    return compaction.derive(plan, empty, choices)


def read(url: str, plan: Manifest, choices: Choices | None) -> Packing:
    """That of a store that was begun; StoreError where it has the other profile."""
    files = shards.connect(url)
    held = store.load_manifest(files)
    if (choices is not None) != (compaction.KEY in held.extraction):
        profile = "compact" if choices is None else "exact"
        raise StoreError(f"{files.url} was begun with --profile {profile}: give that, or choose another --out")
    if choices is None:
        return Packing(plan, plan)
    codings = compaction.load(files, held)
    return Packing(plan, compaction.derive(plan, codings, choices), codings, choices)


@torch.inference_mode()
def make(url: str, plan: Manifest, choices: Choices | None, *, model: Groot | None, source: Source) -> Packing:
    """That of a new store: the codings are measured on a sample of the training records, and put beside it."""
    if choices is None:
        return Packing(plan, plan)
    codings = compaction.fit(plan, _sample(plan, choices, model, source), choices)
    compaction.save(shards.connect(url), codings)
    return Packing(plan, compaction.derive(plan, codings, choices), codings, choices)


def _sample(plan: Manifest, choices: Choices, model: Groot | None, source: Source) -> Iterator[Arrays]:
    """Whole batches go through the teacher, so that the bits are those of the extraction."""
    wanted = {name: plan.features[name] for name in compaction.wide(plan, choices)}
    for batch in batches.sample(plan, tokens=compaction.STATISTICS_TOKENS) if wanted else ():
        values = groups.run(model, source, source.prepare(batch), wanted)
        chosen = [batch.index(record) for record in batches.training(plan, batch)]
        yield {name: found[chosen].reshape(-1, *found.shape[2:]) for name, found in values.items()}
