"""What must hold of a feature's values, record by record."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bridge import arc
from bridge.reader import Reader

SUM_ERROR = 1e-3  # of an attention row that should sum to 1
MAY_LACK = {"objects": 3, "pixels": 2}
"""Labels that are NaN where an object is absent, and the coordinates that go together."""


def named(reader: Reader, index: int) -> str:
    """A record in words."""
    table = reader.manifest.records
    if reader.manifest.task == "arc":
        return f"record {index} ({table['task'][index]}, {table['kind'][index]} {table['pair'][index]})"
    return f"record {index} (episode {table['episode'][index]}, row {table['row'][index]})"


def _cells(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, frames in enumerate(records, first):
        try:
            for frame in frames:
                arc.grid(frame)
        except arc.ArcError as error:
            yield f"{named(reader, index)}: {error}"
        if frames.max() > arc.OUTSIDE:
            yield f"{named(reader, index)}: cell code {frames.max()}, the largest is {arc.OUTSIDE}"


def _attention(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    tile = reader.manifest.teacher.grid**2
    for index, values in enumerate(records, first):
        sums = values.reshape(-1, tile).sum(axis=1)
        if values.min() < 0 or np.abs(sums - 1).max() > SUM_ERROR:
            yield f"{named(reader, index)}: tiles sum to {sums.min():.4f}..{sums.max():.4f}, least {values.min():.2g}"


def _saliency(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, values in enumerate(records, first):
        if values.min() < 0 or abs(values.sum() - 1) > SUM_ERROR:
            yield f"{named(reader, index)}: sums to {values.sum():.4f}, least {values.min():.2g}"


def _attention_mask(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, mask in enumerate(records, first):
        if not mask.all():
            yield f"{named(reader, index)}: {mask.sum()} of {len(mask)} positions are real; no sequence is padded here"


def _image_mask(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, mask in enumerate(records, first):
        expected = reader.counts["image"][index]
        if mask.sum() != expected:
            yield f"{named(reader, index)}: marks {mask.sum()} image positions, the record has {expected} image tokens"


def _convergence(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, values in enumerate(records, first):
        last = values[0, -1]  # of the last layer to itself
        if np.abs(values).max() > 1 + SUM_ERROR or abs(last - 1) > SUM_ERROR:
            yield f"{named(reader, index)}: cosines {values.min():.3f}..{values.max():.3f}, the last {last:.3f}, not 1"


def _path(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    """Every path [1, k, steps + 1, h, a] leads from the noise to the actions."""
    found, places = np.concatenate(records), np.arange(first, first + len(records))
    for name, end in (("noise", found[:, :, 0]), ("actions", found[:, :, -1])):
        if name in reader.manifest.features:
            differs = (reader.take(name, places) != end).any(axis=(1, 2, 3))
            yield from (f"{named(reader, first + i)}: does not join its {name}" for i in np.flatnonzero(differs))


def _confidence(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    for index, value in enumerate(records, first):
        if not 0 < value[0] <= 1:
            yield f"{named(reader, index)}: {value[0]:.3g}, it must be above 0 and at most 1"


def _instruction(reader: Reader, records: list[np.ndarray], first: int) -> Iterator[str]:
    texts, said = reader.manifest.extraction["instructions"], reader.manifest.records["instruction"]
    for index, value in enumerate(records, first):
        if not 0 <= value[0] < len(texts) or texts[value[0]] != said[index]:
            yield f"{named(reader, index)}: {value[0]} is not the number of {said[index]!r}"


CHECKS: dict[str, Callable[[Reader, list[np.ndarray], int], Iterator[str]]] = {
    "cells": _cells,
    "vision_attention": _attention,
    "saliency": _saliency,
    "attention_mask": _attention_mask,
    "image_mask": _image_mask,
    "layer_convergence": _convergence,
    "path": _path,
    "confidence": _confidence,
    "instruction_id": _instruction,
}
