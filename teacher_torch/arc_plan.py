"""What an extraction from ARC will write: records, lengths, features and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge import arc
from bridge import manifest as manifests
from bridge.manifest import Feature, Manifest
from teacher_torch import arc_inputs, plan, standin
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.tokenizer import Tokenizer

DATASETS = {"arc1": 1, "arc2": 2}
OWN = "cells"  # always stored, in place of pictures; the model is not needed for it
DEFAULT_FEATURES = (
    *(OWN, "image_tokens", "vision_attention", "backbone_features"),
    *("attention_mask", "image_mask", "input_ids"),
)
TEMPLATE_TOKENS, IMAGE_TOKENS = 19, 7  # of a prompt, and more for every image beside its image tokens

Records = list[tuple[str, arc.Record]]


def features(config: GrootConfig) -> dict[str, Feature]:
    """Everything that can be extracted for ARC from a model of these sizes."""
    wide = {name: (config.width,) for name in ("image_tokens", "backbone_features", "adapted_features")}
    return {
        OWN: Feature((arc.SIDE, arc.SIDE), "uint8", "frame"),
        "image_tokens": Feature(wide["image_tokens"], "bfloat16", "image"),
        "vision_attention": Feature((), "float32", "image"),
        "backbone_features": Feature(wide["backbone_features"], "bfloat16", "token"),
        "adapted_features": Feature(wide["adapted_features"], "bfloat16", "token"),
        "attention_mask": Feature((), "bool", "token"),
        "image_mask": Feature((), "bool", "token"),
        "input_ids": Feature((), "int32", "token"),
        "layer_convergence": Feature((config.language.num_hidden_layers,), "float32", "record"),
    }


def choose_records(dataset: str, splits: Sequence[str], limit: int | None) -> Records:
    """(split, record) of the first `limit` tasks of every split (all if None), in the order of their ids."""
    found = arc.splits(DATASETS[dataset])
    plan.check_choice(splits, found, limit, what="task")
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
    columns, rows = arc_inputs.tile_grid(teacher.config, max_tiles)
    described = plan.describe(teacher, max_tiles=max_tiles, columns=columns, rows=rows)
    tokens = {n: length(tokenizer, frames=n, tokens_per_frame=described.tokens) for n in (1, 2)}
    frames = [len(record.cells) for _, record in records]
    return manifests.make(
        "arc",
        described,
        features=plan.choose(features(teacher.config), [OWN, *names], what="ARC"),
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
