"""What every extraction settles before any forward pass: features, who made them, batches and bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bridge import manifest as manifests
from bridge.manifest import Feature, Manifest
from teacher_torch import standin

COMPRESSED = {"float32": 0.95}  # of the raw bytes, at most: zstd on float32 noise gives 0.92, on bfloat16 noise 0.78
OTHERWISE = 0.8


class PlanError(ValueError):
    """An extraction that cannot be done as asked; the message says what is possible."""


def choose(known: Mapping[str, Feature], names: Sequence[str], *, what: str) -> dict[str, Feature]:
    """The named features in the order of `known`; what: what they are of, for the error."""
    if unknown := sorted(set(names) - set(known)):
        raise PlanError(f"no such features for {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in known if name in names}


def check_choice(splits: Sequence[str], found: Collection[str], limit: int | None, *, what: str) -> None:
    """PlanError on a split that is not there, or a limit below one."""
    if unknown := sorted(set(splits) - set(found)):
        raise PlanError(f"no such splits: {', '.join(unknown)}; there are {', '.join(found)}")
    if limit is not None and limit < 1:
        raise PlanError(f"--limit {limit}: expected at least one {what} a split")


def describe(teacher: standin.Teacher, *, max_tiles: int, columns: int, rows: int) -> manifests.Teacher:
    """The manifest's account of a teacher that cuts a frame into columns * rows tiles."""
    config = teacher.config
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
        thumbnail=columns * rows > 1,
        layers=config.language.num_hidden_layers,
    )


def disk_bytes(manifest: Manifest, groups: Sequence[int]) -> int:
    """What these groups will take on disk, at most or nearly."""
    rows = [manifest.rows(group) for group in groups]
    return int(
        sum(
            COMPRESSED.get(feature.dtype, OTHERWISE) * feature.row_bytes * sum(row[feature.axis] for row in rows)
            for feature in manifest.features.values()
        )
    )
