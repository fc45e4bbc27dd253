"""What an extraction will write, known before any forward pass: records, lengths, features, layout and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge import arc
from bridge import manifest as manifests
from bridge.manifest import Feature, Manifest
from teacher_torch import arc_inputs, standin, taps
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.tokenizer import Tokenizer

DATASETS = {"arc1": 1, "arc2": 2}
DEFAULT_FEATURES = (
    *("cells", "image_tokens", "vision_attention", "backbone_features"),
    *("attention_mask", "image_mask", "input_ids"),
)
TEMPLATE_TOKENS, IMAGE_TOKENS = 19, 7  # of a prompt, and more for every image beside its image tokens
COMPRESSED = 0.8  # of the raw bytes, at most: zstd on bfloat16 noise gives 0.78

Records = list[tuple[str, arc.Record]]


class PlanError(ValueError):
    """An extraction that cannot be done as asked; the message says what is possible."""


def features(config: GrootConfig) -> dict[str, Feature]:
    """Everything that can be extracted for ARC from a model of these sizes."""
    wide = {name: (config.width,) for name in ("image_tokens", "backbone_features", "adapted_features")}
    return {
        "cells": Feature((arc.SIDE, arc.SIDE), "uint8", "frame"),
        "image_tokens": Feature(wide["image_tokens"], "bfloat16", "image"),
        "vision_attention": Feature((), "float32", "image"),
        "backbone_features": Feature(wide["backbone_features"], "bfloat16", "token"),
        "adapted_features": Feature(wide["adapted_features"], "bfloat16", "token"),
        "attention_mask": Feature((), "bool", "token"),
        "image_mask": Feature((), "bool", "token"),
        "input_ids": Feature((), "int32", "token"),
        "layer_convergence": Feature((config.language.num_hidden_layers,), "float32", "record"),
    }


def chosen_features(config: GrootConfig, names: Sequence[str]) -> dict[str, Feature]:
    """The named features, and cells always: a store keeps cells instead of pictures."""
    known = features(config)
    if unknown := sorted(set(names) - set(known)):
        raise PlanError(f"no such features for ARC: {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in known if name in names or name == "cells"}


def choose_records(dataset: str, splits: Sequence[str], limit: int | None) -> Records:
    """(split, record) of the first `limit` tasks of every split (all if None), in the order of their ids."""
    found = arc.splits(DATASETS[dataset])
    if unknown := sorted(set(splits) - set(found)):
        raise PlanError(f"no such splits: {', '.join(unknown)}; there are {', '.join(found)}")
    if limit is not None and limit < 1:
        raise PlanError(f"--limit {limit}: expected at least one task a split")
    return [
        (split, record)
        for split in found
        if split in splits
        for task in found[split][:limit]
        for record in arc.records(task)
    ]


def length(tokenizer: Tokenizer, *, frames: int, tokens_per_frame: int) -> int:
    """Prompt positions of a record: 19 + 7 per image + image tokens + text tokens (GROOT N1.5's chat template)."""
    text = len(tokenizer.encode(arc.INSTRUCTION))
    return TEMPLATE_TOKENS + frames * (IMAGE_TOKENS + tokens_per_frame) + text


def describe(teacher: standin.Teacher, max_tiles: int) -> manifests.Teacher:
    """The manifest's account of a teacher."""
    config = teacher.config
    columns, rows = arc_inputs.tile_grid(config, max_tiles)
    return manifests.Teacher(
        id=teacher.folder.name if str(teacher.folder) == teacher.id else teacher.id,  # no path: bytes are of no machine
        digest=teacher.digest,
        provenance=teacher.provenance,
        licence=teacher.licence,
        tile=config.tile,
        grid=config.grid,
        width=config.width,
        max_tiles=max_tiles,
        columns=columns,
        rows=rows,
        thumbnail=arc_inputs.tiles_of(columns, rows) > columns * rows,
        layers=config.language.num_hidden_layers,
    )


def make_manifest(
    teacher: standin.Teacher,
    tokenizer: Tokenizer,
    records: Records,
    *,
    names: Sequence[str],
    max_tiles: int,
    extraction: Mapping[str, Any],
    group_records: int = manifests.GROUP_RECORDS,
) -> Manifest:
    """The layout of everything that these records give. The same arguments give the same bytes on any machine."""
    described = describe(teacher, max_tiles)
    tokens = {n: length(tokenizer, frames=n, tokens_per_frame=described.tokens) for n in (1, 2)}
    frames = [len(record.cells) for _, record in records]
    return manifests.make(
        "arc",
        described,
        features=chosen_features(teacher.config, names),
        counts={
            "record": [1] * len(records),
            "frame": frames,
            "image": [n * described.tokens for n in frames],
            "token": [tokens[n] for n in frames],
        },
        records={
            "task": [record.task for _, record in records],
            "pair": [record.pair for _, record in records],
            "kind": [record.kind for _, record in records],
            "split": [split for split, _ in records],
        },
        extraction=extraction,
        group_records=group_records,
    )


def batches(manifest: Manifest, group: int) -> list[list[int]]:
    """Records of a group in batches of equal length, in an order that depends on the manifest alone."""
    first, last = manifest.groups[group]
    by_length: dict[int, list[int]] = {}
    for record in range(first, last):
        by_length.setdefault(manifest.axes["token"].counts[record], []).append(record)
    size = manifest.extraction["batch_size"]
    return [same[i : i + size] for same in by_length.values() for i in range(0, len(same), size)]


def disk_bytes(manifest: Manifest, groups: Sequence[int]) -> int:
    """What these groups will take on disk, at most or nearly."""
    return int(COMPRESSED * sum(manifest.raw_bytes(group) for group in groups))


def tapped(names: Sequence[str]) -> list[str]:
    """Those features that come from the model or its inputs rather than from the record itself."""
    return [name for name in names if name in taps.NAMES]
