"""What a compact store holds of an exact one's features: tokens coded by blocks, the teacher's numbers in float16.

Its manifest's extraction says of each, under "compact", what was done to it; `codings/` beside it has what undoes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from bridge import blocks, coding, manifest, shards
from bridge.coding import Coding
from bridge.manifest import Feature, Manifest, StoreError

KEY = "compact"
SCALE = ".scale"
"""Of a coded feature's scales, after its name."""
AXIS = "block"
"""Of codes: a row for every block of image tokens."""
EXACT = ("state", "demonstration", "objects", "pixels", "confidence")
"""Small numbers that stay as they are: the observation's own, the labels', and one that must not become 0."""
DROPPED = ("path", "velocity", "backbone_features", "adapted_features")
"""Features that no stage trains on and that are larger than all others together."""
STATISTICS_TOKENS = 1 << 18
"""Image tokens behind the statistics: 32 blocks per channel of the 2,048-wide teacher."""
TRANSFORM = (
    "leading principal components of the Haar bands of the training split's blocks, rotated by PHI-S (arXiv 2410.01680)"
)


@dataclasses.dataclass(frozen=True)
class Choices:
    """How much is kept."""

    components: int = 512
    """Most values of a block: 512 keep an example of the 2,048-wide teacher below 100 kB."""
    variance: float = 0.999
    """Share of the training tokens' variance that is enough; fewer values are kept where it is reached."""
    drop: tuple[str, ...] = DROPPED
    """Features that are left out."""


def choose(components: int, variance: float, drop: Iterable[str]) -> Choices:
    """The choices; StoreError where they cannot be."""
    if components < 1 or not 0 < variance <= 1:
        raise StoreError("--components: expected 1 or more; --variance: expected above 0, at most 1")
    return Choices(components, variance, tuple(drop))


def wide(source: Manifest, choices: Choices) -> list[str]:
    """The features of an exact store that are coded: a vector of floats per image token."""
    found = source.features.items()
    return [n for n, f in found if f.axis == "image" and _floats(f) and len(f.shape) == 1 and n not in choices.drop]


def half(source: Manifest, choices: Choices) -> list[str]:
    """The features of float32 that become float16."""
    coded = (*wide(source, choices), *choices.drop, *EXACT)
    return [name for name, feature in source.features.items() if feature.dtype == "float32" and name not in coded]


def derive(source: Manifest, codings: Mapping[str, Coding], choices: Choices) -> Manifest:
    """The manifest of the compact store that holds the same records in the same groups."""
    check(source, choices)
    features: dict[str, Feature] = {}
    for name, feature in source.features.items():
        if name in codings:
            features[name] = Feature((codings[name].components,), "int8", AXIS)
            features[name + SCALE] = Feature((), "float16", AXIS)
        elif name not in choices.drop:
            dtype = "float16" if name in half(source, choices) else feature.dtype
            features[name] = Feature(feature.shape, dtype, feature.axis)
    return manifest.make(
        source.task,
        source.teacher,
        features=features,
        counts=_counts(source),
        records=source.records,
        extraction=source.extraction | {KEY: _account(source, codings, choices)},
        groups=source.groups,
    )


def check(source: Manifest, choices: Choices) -> None:
    """StoreError where the manifest is compact already or lacks what is to be dropped."""
    if KEY in source.extraction:
        raise StoreError("this store is compact already: make another from the exact one that it was made from")
    if unknown := sorted(set(choices.drop) - set(source.features) - set(DROPPED)):
        raise StoreError(f"--drop {' '.join(unknown)}: no such features; there are {', '.join(source.features)}")


def encode(
    source: Manifest, arrays: Mapping[str, np.ndarray], codings: Mapping[str, Coding], choices: Choices
) -> dict[str, np.ndarray]:
    """A group's arrays of the exact store as the compact one holds them."""
    found = {name: array for name, array in arrays.items() if name not in choices.drop and name not in codings}
    for name in half(source, choices):
        with np.errstate(over="ignore"):
            found[name] = arrays[name].astype(np.float16)
        if not np.isfinite(found[name]).all():
            raise StoreError(f"{name} is not finite in float16 (at most 65,504): leave it out with --drop {name}")
    for name, one in codings.items():
        found[name], found[name + SCALE] = one.encode(arrays[name])
    return found


def fit(source: Manifest, training: Iterable[Mapping[str, np.ndarray]], choices: Choices) -> dict[str, Coding]:
    """By feature, from exact arrays of training records, one record after another."""
    check(source, choices)
    grid = source.teacher.grid
    moments = {name: coding.Moments(source.features[name].shape[0], grid) for name in wide(source, choices)}
    for arrays in training:
        for name, found in moments.items():
            found.add(arrays[name])
    limits = {"components": choices.components, "variance": choices.variance}
    return {name: coding.fit(found, **limits) for name, found in moments.items()}


def save(files: ts.KvStore, codings: Mapping[str, Coding]) -> None:
    """Put the codings there; the name has their digest, so that none is ever mistaken for another."""
    for name, one in codings.items():
        shards.create(files, _key(name, one.digest), one.to_bytes())


def load(files: ts.KvStore, held: Manifest) -> dict[str, Coding]:
    """The codings of a store, none of an exact one; StoreError where a file is missing or was changed."""
    found = {}
    for name, account in held.extraction.get(KEY, {}).get("features", {}).items():
        if "coding" not in account:
            continue
        if "block" not in account:
            raise StoreError(
                f"{files.url}: {name} is coded as an earlier version did; make the store again: python -m "
                "bridge.compact EXACT --out COMPACT, or extract --profile compact"
            )
        key = _key(name, account["coding"])
        content = shards.read(files, key)
        try:
            found[name] = coding.from_bytes(content or b"", account["variance"], held.teacher.grid)
        except (ValueError, EOFError):
            found[name] = None
        if found[name] is None or found[name].digest != account["coding"]:
            raise StoreError(f"{files.url}{key}: missing or changed, so {name} cannot be read: make the store again")
    return found


def same(a: Manifest, b: Manifest) -> bool:
    """Whether the features of two stores mean the same: both exact, or both coded alike."""
    one, other = (each.extraction.get(KEY, {}).get("features") for each in (a, b))
    return one == other


def _account(source: Manifest, codings: Mapping[str, Coding], choices: Choices) -> dict[str, Any]:
    """What the manifest says was done to every feature that was changed."""
    side = blocks.side(source.teacher.grid)
    said: dict[str, dict[str, Any]] = {name: {"dtype": "float16"} for name in half(source, choices)}
    for name, one in codings.items():
        said[name] = {
            "dtype": "int8",
            "scale": "per block",
            "block": [side, side],
            "transform": TRANSFORM,
            "width": source.features[name].shape[0],
            "components": one.components,
            "variance": one.kept,
            "coding": one.digest,
        }
    dropped = [name for name in source.features if name in choices.drop]
    return {"source": source.digest, "features": said, "dropped": dropped}


def block_counts(held: Manifest) -> list[int]:
    """Blocks of image tokens of every record."""
    side = blocks.side(held.teacher.grid)
    return [count // side**2 for count in held.axes["image"].counts]


def _counts(source: Manifest) -> dict[str, tuple[int, ...]]:
    counts = {name: axis.counts for name, axis in source.axes.items()}
    return counts | {AXIS: tuple(block_counts(source))}


def _floats(feature: Feature) -> bool:
    return feature.dtype in ("bfloat16", "float32")


def _key(name: str, digest: str) -> str:
    return f"codings/{name}-{digest[:16]}.npy"
