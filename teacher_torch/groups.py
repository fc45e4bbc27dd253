"""A group's arrays from the teacher: batches of equal length through the model, rows where the manifest puts them."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import torch

from bridge import arc
from bridge.manifest import Feature, Manifest
from teacher_torch import plan, taps
from teacher_torch.arc_inputs import Preparer
from teacher_torch.groot.inputs import ModelInputs
from teacher_torch.groot.model import Groot

Arrays = dict[str, np.ndarray]


class LengthError(RuntimeError):
    """A prompt that is not as long as planned: the tokenizer or the template is not the planned one."""


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


def run(
    model: Groot | None, inputs: ModelInputs, records: Sequence[arc.Record], features: dict[str, Feature]
) -> Arrays:
    """Values [records, rows, *shape] of every feature, computing no more of the model than they need."""
    values = {"cells": np.stack([record.cells for record in records])}
    if names := plan.tapped(list(features)):
        device = next(model.parameters()).device
        taken = taps.collect(model, inputs.to(device), names)
        values |= {name: _rows(taken[name], len(records), features[name]) for name in names}
    return values


def check_length(inputs: ModelInputs, manifest: Manifest, batch: Sequence[int]) -> None:
    """Raise LengthError unless the batch's prompts are as long as planned."""
    planned = {manifest.axes["token"].counts[record] for record in batch}
    if {inputs.input_ids.shape[1]} != planned:
        raise LengthError(f"prompts of {inputs.input_ids.shape[1]} tokens, planned {planned}: records {list(batch)}")


def fit_batch(
    model: Groot | None, preparer: Preparer, records: Sequence[arc.Record], features: dict[str, Feature]
) -> int:
    """The largest of len(records), half of it, ... that fits into memory; raises plan.PlanError if one record does not.

    records: as many of the longest kind as should be tried.
    """
    size = len(records)
    while size > 1:
        try:
            run(model, preparer.prepare(records[:size]), records[:size], features)
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
