"""Extraction from ARC: options, and its records as model inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from bridge.manifest import Manifest
from teacher_torch import arc_plan, request, standin, taps
from teacher_torch.arc_inputs import Preparer
from teacher_torch.groot.model import Groot
from teacher_torch.groups import Batch

OFFICIAL_TILES = 12


@dataclasses.dataclass(frozen=True)
class Options(request.Options):
    """Run a teacher over ARC records (--task robot --help: over robot episodes) and write its features to a store. Stop
    it at any moment and run it again: it goes on after the last committed group and ends with the same bytes as an
    uninterrupted run. Without any option it extracts a few tasks, with the stand-in if that was trained, else with a
    random model of the same sizes."""

    task: Literal["arc"] = "arc"
    """What the records are of: arc, or robot, which has options of its own."""
    dataset: Literal["arc1", "arc2"] = "arc1"
    """ARC-AGI-1 or -2. ARC-2's train split holds ARC-1 evaluation tasks: see bridge.arc.trainable before a report."""
    limit: int | None = None
    """Most tasks of each split, the first by id. Default: all; 4 where no teacher is named."""
    features: tuple[str, ...] = arc_plan.DEFAULT_FEATURES
    """Names of features; there are also adapted_features and layer_convergence. cells are always stored."""
    tiles: int | None = None
    """Most tiles a frame is cut into: 12 is official, 1 compact. Default: 1 for a stand-in, else 12."""
    seed: int = 0
    """Of the weights of a random teacher; nothing else here is drawn."""
    padding: Literal["white", "black"] = "white"
    """Colour outside the grid; black is the first attempt's and hides the grid's size."""


class Source:
    """ARC records as model inputs."""

    def __init__(self, preparer: Preparer, records: arc_plan.Records) -> None:
        self.preparer, self.records = preparer, [record for _, record in records]

    def prepare(self, records: Sequence[int]) -> Batch:
        """Inputs of records with equally many frames."""
        chosen = [self.records[i] for i in records]
        cells = np.stack([record.cells for record in chosen])
        return Batch(list(records), self.preparer.prepare(chosen), {arc_plan.OWN: cells})

    def take(self, model: Groot, batch: Batch, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The taps of the same names."""
        return taps.collect(model, batch.inputs.to(next(model.parameters()).device), names)


class Setting(request.Setting):
    """What the options come to."""

    options: Options

    def __init__(self, options: Options) -> None:
        self.words = standin.make_tokenizer()
        teacher = request.find_teacher(options.teacher, options.task)
        teacher = teacher or request.random_teacher(standin.make_config(self.words), options.seed)
        super().__init__(options, teacher, seed=options.seed, limit=options.limit)
        self.records = arc_plan.choose_records(options.dataset, options.splits, self.limit)
        self.max_tiles = options.tiles or (standin.MAX_TILES if self.ours else OFFICIAL_TILES)
        if teacher.id != request.RANDOM or options.tokenizer:
            self.words = request.load_tokenizer(options.tokenizer, teacher)
        preparer = Preparer(teacher.config, self.words, max_tiles=self.max_tiles, padding=options.padding)
        self.source = Source(preparer, self.records)

    @property
    def dataset(self) -> str:
        return self.options.dataset

    def manifest(self, batch_size: int) -> Manifest:
        """The plan with a batch size."""
        options = self.options
        return arc_plan.make_manifest(
            self.teacher,
            self.words,
            self.records,
            names=options.features,
            max_tiles=self.max_tiles,
            group_records=options.group,
            extraction={
                "dataset": options.dataset,
                "dtype": self.dtype,
                "device": torch.device(self.device).type,
                "batch_size": batch_size,
                "seed": options.seed,
                "padding": options.padding,
            },
        )

    def needs(self, manifest: Manifest) -> tuple[bool, bool]:
        """(whether a feature comes from the model, whether one comes from its action head)."""
        names = set(manifest.features)
        return bool(names & {*taps.NAMES}), bool(names & {*taps.HEAD})

    def summary(self, manifest: Manifest) -> str:
        """The records in words."""
        tasks = len(set(manifest.records["task"]))
        limited = f" (at most {self.limit} a split)" if self.limit else ""
        return f"{self.dataset}: {tasks} tasks{limited}"
