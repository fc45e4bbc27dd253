"""A group's arrays from the teacher: batches of equal length through the model, rows where the manifest puts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import ml_dtypes
import numpy as np
import torch

from bridge.manifest import Feature, Manifest
from teacher_torch.groot.inputs import ModelInputs
from teacher_torch.groot.model import Groot

Arrays = dict[str, np.ndarray]


class LengthError(RuntimeError):
    """A prompt that is not as long as planned: the tokenizer or the template is not the planned one."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Records with prompts of one length: what the model is given, and the features that are known without it.

    known: [records, rows, *shape] of every feature that does not come from the model.
    """

    records: list[int]
    inputs: ModelInputs
    known: Arrays


class Source(Protocol):
    """The records of one extraction, by their places in its manifest."""

    def prepare(self, records: Sequence[int]) -> Batch:
        """Records with prompts of one length, read and made ready on the CPU."""

    def take(self, model: Groot, batch: Batch, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The named features of a batch, each [records, ...] with its rows in order."""


def empty(manifest: Manifest, group: int) -> Arrays:
    """Arrays [rows, *shape] of a group, to be filled."""
    rows = manifest.rows(group)
    return {n: np.empty((rows[f.axis], *f.shape), f.numpy_dtype) for n, f in manifest.features.items()}


def fill(arrays: Arrays, manifest: Manifest, *, group: int, batch: Sequence[int], values: Arrays) -> None:
    """Put a batch's values [records, rows, *shape] into its group's arrays."""
    for name, array in arrays.items():
        axis = manifest.axes[manifest.features[name].axis]
        for record, rows in zip(batch, values[name], strict=True):
            start = axis.starts[record] - group * axis.shard
            array[start : start + axis.counts[record]] = rows


def run(model: Groot | None, source: Source, batch: Batch, features: Mapping[str, Feature]) -> Arrays:
    """Values [records, rows, *shape] of every feature, computing no more of the model than they need."""
    values = {name: batch.known[name] for name in features if name in batch.known}
    if names := [name for name in features if name not in batch.known]:
        taken = source.take(model, batch, names)
        values |= {name: _rows(taken[name], len(batch.records), features[name]) for name in names}
    return values


def check_length(batch: Batch, manifest: Manifest) -> None:
    """Raise LengthError unless the batch's prompts are as long as planned."""
    planned = {manifest.axes["token"].counts[record] for record in batch.records}
    found = batch.inputs.input_ids.shape[1]
    if {found} != planned:
        raise LengthError(f"prompts of {found} tokens, planned {planned}: records {batch.records}")


def fit_batch(model: Groot | None, source: Source, records: Sequence[int], features: Mapping[str, Feature]) -> int:
    """The largest of len(records), half of it, ... that fits into memory; raises plan.PlanError if one record does not.

    records: as many of the longest kind as should be tried.
    """
    size = len(records)
    while size > 1:
        try:
            run(model, source, source.prepare(records[:size]), features)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            size //= 2
        else:
            return size
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return size


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the CPU allocator ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in str(error)


def _rows(value: torch.Tensor, records: int, feature: Feature) -> np.ndarray:
    """One tap of a batch -> [records, rows, *shape] in the stored dtype; bfloat16 without a detour that rounds."""
    shaped = value.reshape(records, -1, *feature.shape)
    if feature.dtype == "bfloat16":
        bits = shaped.to(torch.bfloat16).contiguous().view(torch.uint16)
        return bits.cpu().numpy().view(ml_dtypes.bfloat16)
    return shaped.to(getattr(torch, feature.dtype)).cpu().numpy()
