"""One key of state or action to normalised values and back: its rotation is converted, then its mode applied."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from bridge import normalisation, rotation
from bridge.rotation import RotationError
from bridge.transform import EmbodimentError, Transform

MENDED = "in meta/modality.json, then write the metadata again with python -m bridge.embodiment DATASET"


@dataclasses.dataclass(frozen=True)
class Scaling:
    """name: "state.KEY" or "action.KEY"; statistics: those that the mode uses; turn: (source, target) where the key is
    a rotation that is converted; absolute: False for a change per step."""

    name: str
    statistics: Mapping[str, np.ndarray]
    mode: str
    values: int
    turn: tuple[str, str] | None = None
    absolute: bool = True

    @property
    def width(self) -> int:
        """How many normalised values the key has."""
        return normalisation.width(rotation.WIDTHS[self.turn[1]] if self.turn else self.values, self.mode)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Normalised values [..., width] of physical ones [..., values]."""
        return normalisation.forward(self._turned(x, self.turn), self.statistics, self.mode)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Physical values [..., values] of normalised ones [..., width]."""
        back = self.turn and self.turn[::-1]
        return self._turned(normalisation.inverse(x, self.statistics, self.mode), back)

    def _turned(self, x: np.ndarray, turn: tuple[str, str] | None) -> np.ndarray:
        """Converted. A relative row of zeros, as beyond an episode's end, is no rotation in any representation."""
        if turn is None:
            return x
        if not self.absolute:
            x = np.where((x == 0).all(-1, keepdims=True), rotation.identity(turn[0]).astype(x.dtype), x)
        try:
            return rotation.convert(x, *turn)
        except RotationError as error:
            raise EmbodimentError(f"{self.name} is read as {turn[0]}: {error}") from error


def make(
    name: str, statistics: Mapping[str, np.ndarray], modality: Mapping[str, object], transform: Transform
) -> Scaling:
    """The scaling of a key; modality: what GR00T's metadata says of it. As in GR00T, absolute rotations that are
    converted have fixed bounds instead of statistics, and relative ones are not normalised."""
    mode, values = transform.normalisation.get(name, "none"), len(statistics["mean"])
    source, target = modality.get("rotation_type"), transform.rotations.get(name)
    if target is None:
        return Scaling(name, statistics, mode, values)
    if source not in rotation.WIDTHS:
        raise EmbodimentError(
            f"{name} is to become {target}, but its rotation_type is {source!r}: set it ({rotation.names()}) {MENDED}"
        )
    if values != rotation.WIDTHS[source]:
        raise EmbodimentError(
            f"{name} has {values} values, its rotation_type {source} has {rotation.WIDTHS[source]}: "
            f"correct rotation_type, start or end {MENDED}"
        )
    if source == target:
        return Scaling(name, statistics, mode, values)
    absolute, fixed = bool(modality.get("absolute", True)), rotation.bounds(target)
    if mode != "none" and (mode != "min_max" or not absolute or fixed is None):
        why = f"as {target}" if absolute else "a relative rotation, whose bounds are not known,"
        known = "min_max or none" if absolute and fixed is not None else "none"
        raise EmbodimentError(f"{name}, {why} can only be normalised by {known}: --normalisation {name}=none")
    return Scaling(name, fixed or statistics, mode, values, (source, target), absolute)
