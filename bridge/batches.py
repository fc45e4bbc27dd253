"""Which of a store's records went through the teacher together, and a sample of its training records."""

from __future__ import annotations

from bridge.manifest import Manifest


def of(manifest: Manifest, group: int) -> list[list[int]]:
    """Records of a group in batches of equal length, in an order that depends on the manifest alone."""
    first, last = manifest.groups[group]
    lengths = manifest.axes["token" if "token" in manifest.axes else "image"].counts
    by_length: dict[int, list[int]] = {}
    for record in range(first, last):
        by_length.setdefault(lengths[record], []).append(record)
    size = manifest.extraction.get("batch_size", 1)
    return [same[i : i + size] for same in by_length.values() for i in range(0, len(same), size)]


def sample(manifest: Manifest, *, tokens: int) -> list[list[int]]:
    """Batches spaced evenly over those with training records, about `tokens` image tokens in all, at least one batch.

    Whole batches, so that whoever computes them again gets the same bits.
    """
    split, counts = manifest.records["split"], manifest.axes["image"].counts
    every = [batch for group in range(len(manifest.groups)) for batch in of(manifest, group)]
    known = [batch for batch in every if any(split[record] == "train" for record in batch)]
    held = sum(counts[record] for batch in known for record in batch)
    step = max(1, -(-held // tokens))
    return known[::step]


def training(manifest: Manifest, batch: list[int]) -> list[int]:
    """The training records of a batch."""
    return [record for record in batch if manifest.records["split"][record] == "train"]
