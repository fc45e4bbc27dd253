"""A robot body (or the ARC grid) to a policy: statistics, modalities and how its numbers and images are transformed.

The file is GR00T's own metadata.json with a `transform` entry beside each tag's statistics.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from bridge import scaling, statistics
from bridge import transform as transforms
from bridge.transform import EmbodimentError, Transform

STATISTICS = statistics.STATISTICS
GROUPS = ("state", "action")


@dataclasses.dataclass(frozen=True)
class Embodiment:
    """tag; statistics {"state"|"action": {key: {statistic: float64 [d]}}}; modalities as in GR00T's file; transform."""

    tag: str
    statistics: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
    modalities: Mapping[str, Mapping[str, Mapping[str, object]]]
    transform: Transform

    def __post_init__(self) -> None:
        for group in GROUPS:
            for key, values in self.statistics.get(group, {}).items():
                if missing := [name for name in STATISTICS if name not in values]:
                    raise EmbodimentError(
                        f"{self.tag}: {group}.{key} lacks {missing}; all of {STATISTICS} are required"
                    )
                if len({values[name].shape for name in STATISTICS}) != 1:
                    raise EmbodimentError(f"{self.tag}: the statistics of {group}.{key} differ in length")
                self.scaling(group, key)
        keys = [f"{group}.{key}" for group in GROUPS for key in self.statistics.get(group, {})]
        if unknown := sorted(set(self.transform.rotations) - set(keys)):
            raise EmbodimentError(f"{self.tag}: rotations name {', '.join(unknown)}, the keys are {', '.join(keys)}")

    def dimensions(self, group: str) -> dict[str, int]:
        """Physical values of every key of "state" or "action", in order."""
        return {key: len(values["mean"]) for key, values in self.statistics.get(group, {}).items()}

    def widths(self, group: str) -> dict[str, int]:
        """Normalised values of every key of "state" or "action", in order: other than its dimensions for sin_cos and
        for rotations that are converted."""
        return {key: self.scaling(group, key).width for key in self.statistics.get(group, {})}

    def scaling(self, group: str, key: str) -> scaling.Scaling:
        """How one key is normalised."""
        modality = self.modalities.get(group, {}).get(key, {})
        return scaling.make(f"{group}.{key}", self.statistics[group][key], modality, self.transform)

    def mode(self, group: str, key: str) -> str:
        """Normalisation mode of one key; a key that the transform does not name is passed as it is."""
        return self.transform.normalisation.get(f"{group}.{key}", "none")


def arc(max_tiles: int = 12) -> Embodiment:
    """ARC-AGI: one camera, a blank state of 16 zeros, an action whose first two values are output size / 30."""
    modes = {"state.blank": "none", "action.size": "none"}
    transform = Transform(("grid",), None, None, max_tiles, modes, 31, 16, "plain")
    size = (np.arange(1, 31, dtype=np.float32) / 30).repeat(2).reshape(30, 2)
    return from_data(
        "arc",
        state={"blank": np.zeros((2, 16), np.float32)},
        action={"size": size},
        video={"grid": {"resolution": [900, 900], "channels": 3, "fps": 1.0}},
        transform=transform,
    )


def from_data(
    tag: str,
    *,
    state: Mapping[str, np.ndarray],
    action: Mapping[str, np.ndarray],
    video: Mapping[str, Mapping[str, object]],
    transform: Transform,
    details: Mapping[str, Mapping[str, object]] | None = None,
) -> Embodiment:
    """Embodiment with statistics measured over rows [n, d] of every key, in float32 as GR00T computes them.

    details: {"state.KEY" | "action.KEY": {absolute, rotation_type}} where they are not True and None.
    """
    arrays = {"state": state, "action": action}
    found = {g: {key: _measure(f"{g}.{key}", rows) for key, rows in arrays[g].items()} for g in GROUPS}
    modalities: dict[str, dict] = {"video": {key: dict(value) for key, value in video.items()}}
    for group in GROUPS:
        modalities[group] = {
            key: {"absolute": True, "rotation_type": None, "shape": [len(values["mean"])], "continuous": True}
            | dict((details or {}).get(f"{group}.{key}", {}))
            for key, values in found[group].items()
        }
    return Embodiment(tag, found, modalities, transform)


def _measure(name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    try:
        return statistics.measure(rows)
    except ValueError as error:
        raise EmbodimentError(f"{name} {error}") from error


def normalise(embodiment: Embodiment, values: Mapping[str, np.ndarray], *, group: str = "state") -> np.ndarray:
    """Normalised values of every key, joined along the last axis in the embodiment's order: [..., d].

    values: {key: [..., d_key]} in physical units, in any float type; the arithmetic is done in that type.
    Formulas, degenerate dimensions (max = min, std = 0) and conversion of rotations as in GR00T N1.5.
    """
    _check_keys(embodiment, group, values)
    parts = []
    for key, width in embodiment.dimensions(group).items():
        value = np.asarray(values[key])
        if value.shape[-1:] != (width,):
            raise EmbodimentError(
                f"{embodiment.tag}: {group}.{key} must end in {width} values, got {list(value.shape)}"
            )
        parts.append(embodiment.scaling(group, key).forward(value))
    return np.concatenate(parts, axis=-1)


def denormalise(embodiment: Embodiment, values: np.ndarray, *, group: str = "action") -> dict[str, np.ndarray]:
    """Physical values {key: [..., d_key]} of a normalised array [..., >= d]; padding beyond the last key is dropped."""
    total = sum(embodiment.widths(group).values())
    if values.shape[-1] < total:
        raise EmbodimentError(f"{embodiment.tag}: {group} needs {total} values, got {list(values.shape)}")
    result, start = {}, 0
    for key, width in embodiment.widths(group).items():
        result[key] = embodiment.scaling(group, key).inverse(values[..., start : start + width])
        start += width
    return result


def normalise_rows(embodiment: Embodiment, values: np.ndarray, *, group: str = "state") -> np.ndarray:
    """Physical values [..., d], keys joined in the embodiment's order, to float32 normalised ones."""
    splits = np.cumsum(list(embodiment.dimensions(group).values()))[:-1]
    parts = dict(zip(embodiment.dimensions(group), np.split(values, splits, axis=-1), strict=True))
    return normalise(embodiment, parts, group=group).astype(np.float32)


def denormalise_rows(embodiment: Embodiment, values: np.ndarray, *, group: str = "action") -> np.ndarray:
    """Normalised values [..., d] to physical ones, keys joined in the embodiment's order."""
    return np.concatenate(list(denormalise(embodiment, values, group=group).values()), axis=-1)


def _check_keys(embodiment: Embodiment, group: str, values: Mapping[str, np.ndarray]) -> None:
    known = embodiment.dimensions(group)
    if set(values) != set(known):
        raise EmbodimentError(f"{embodiment.tag}: {group} has keys {sorted(known)}, got {sorted(values)}")


def save(path: pathlib.Path | str, embodiment: Embodiment) -> None:
    """Write (or replace) this tag's entry of a metadata.json; other tags in the file are kept."""
    path = pathlib.Path(path)
    entries = json.loads(path.read_text()) if path.exists() else {}
    statistics = {
        group: {key: {name: [float(v) for v in values[name]] for name in STATISTICS} for key, values in keys.items()}
        for group, keys in embodiment.statistics.items()
    }
    entries[embodiment.tag] = {
        "statistics": statistics,
        "modalities": embodiment.modalities,
        "embodiment_tag": embodiment.tag,
        "transform": embodiment.transform.fields(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=1))


def load(path: pathlib.Path | str, tag: str | None = None) -> Embodiment:
    """Read one tag of a metadata.json, or of the `experiment_cfg/metadata.json` of a checkpoint folder."""
    path = find(path)
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise EmbodimentError(f"{path} is not JSON ({error}): write it with bridge.embodiment.save") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise EmbodimentError(f"{path} must map each tag to an object, as bridge.embodiment.save writes it")
    tag = _choose(path, entries, tag)
    try:
        return _parse(path, tag, entries[tag])
    except (TypeError, AttributeError, KeyError) as error:
        raise EmbodimentError(f"{path}: {tag} is not as bridge.embodiment.save writes it ({error})") from error


def _parse(path: pathlib.Path, tag: str, entry: Mapping[str, Any]) -> Embodiment:
    if missing := [name for name in ("statistics", "modalities") if name not in entry]:
        raise EmbodimentError(f"{path}: {tag} lacks {missing}; GR00T's metadata has statistics and modalities")
    statistics = {
        group: {
            key: {name: np.asarray(value, np.float64) for name, value in values.items()}
            for key, values in entry["statistics"].get(group, {}).items()
        }
        for group in GROUPS
    }
    return Embodiment(tag, statistics, entry["modalities"], _transform(path, tag, entry))


def find(path: pathlib.Path | str) -> pathlib.Path:
    """The metadata.json at this path, or of this checkpoint folder; FileNotFoundError where there is none."""
    path = pathlib.Path(path)
    candidates = [path / "experiment_cfg" / "metadata.json", path / "metadata.json"] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"no embodiment metadata at {' or '.join(map(str, candidates))}: give a metadata.json (--metadata), "
        "or write one with bridge.embodiment.save"
    )


def _choose(path: pathlib.Path, entries: Mapping[str, object], tag: str | None) -> str:
    if tag is None and len(entries) == 1:
        return next(iter(entries))
    if tag not in entries:
        raise EmbodimentError(
            f"{path} holds no embodiment {tag!r}; it holds {sorted(entries)}: choose one of them (--embodiment), "
            "or add yours with bridge.embodiment.save"
        )
    return tag


def _transform(path: pathlib.Path, tag: str, entry: Mapping[str, dict]) -> Transform:
    """The entry's own transform, or what official fine-tunes use where the file has none."""
    if "transform" in entry:
        return transforms.parse(dict(entry["transform"]), f"{path}: {tag}")
    keys = [f"{group}.{key}" for group in GROUPS for key in entry["statistics"].get(group, {})]
    return transforms.official(tag, tuple(entry["modalities"].get("video", {})), keys)


if __name__ == "__main__":
    from bridge import embodiment_command  # imports this module under its own name, so that its types are the ones used

    sys.exit(embodiment_command.main())
