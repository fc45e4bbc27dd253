"""How a policy's observations become model inputs: cameras, crop, size, tiles, normalisation modes and rotations."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bridge import normalisation, rotation

STYLES = ("plain", "bracketed")
PROJECTORS = {"new_embodiment": 31, "oxe_droid": 17, "agibot_genie1": 26, "gr1": 24, "so100": 2, "unitree_g1": 3}
PROJECTOR_SLOTS = 32
MODES = {
    "oxe_droid": {
        "state.eef_rotation": "none",
        "action.eef_position_delta": "none",
        "action.eef_rotation_delta": "none",
        "action.gripper_position": "binary",
    }
}
"""Keys of official configurations that are not normalised by min_max."""
ROTATIONS = {"oxe_droid": {"state.eef_rotation": "rotation_6d", "action.eef_rotation_delta": "axis_angle"}}
"""Keys of official configurations whose rotations are converted."""


class EmbodimentError(ValueError):
    """An embodiment or its metadata file that cannot be used; the message says what came and the fix."""


@dataclasses.dataclass(frozen=True)
class Transform:
    """How observations become model inputs.

    video_keys: camera names in the order in which they are shown; crop: share of each side kept (None: all);
    resize: side in pixels after the crop (None: the image is tiled as it is); max_tiles: most tiles per image;
    normalisation: mode per "state.KEY" or "action.KEY"; projector_id: row of the head's per-embodiment tables;
    horizon: actions per chunk; instruction_style: "plain" or "bracketed" (['text'], as official robot runs render it);
    rotations: representation that a "state.KEY" or "action.KEY" is converted to from its rotation_type.
    """

    video_keys: tuple[str, ...]
    crop: float | None
    resize: int | None
    max_tiles: int
    normalisation: Mapping[str, str]
    projector_id: int
    horizon: int
    instruction_style: str
    rotations: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := {k: m for k, m in self.normalisation.items() if m not in normalisation.MODES}:
            raise EmbodimentError(f"normalisation must be one of {', '.join(normalisation.MODES)}, got {unknown}")
        if unknown := {k: r for k, r in self.rotations.items() if r not in rotation.WIDTHS}:
            raise EmbodimentError(f"rotations must be one of {rotation.names()}, got {unknown}")
        if self.instruction_style not in STYLES:
            raise EmbodimentError(f"instruction_style must be one of {STYLES}, got {self.instruction_style!r}")
        if not 0 <= self.projector_id < PROJECTOR_SLOTS:
            raise EmbodimentError(f"projector_id must be in 0..{PROJECTOR_SLOTS - 1}, got {self.projector_id}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise EmbodimentError(f"crop must be in (0, 1] or null, got {self.crop}")
        if self.max_tiles < 1 or self.horizon < 1 or (self.resize is not None and self.resize < 1):
            raise EmbodimentError("max_tiles, horizon and resize must be at least 1")

    def __repr__(self) -> str:
        return f"Transform({', '.join(f'{name}={value!r}' for name, value in self.fields().items())})"

    def fields(self) -> dict[str, Any]:
        """As in metadata.json; without rotations where there are none, so that older files and digests still hold."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if value or name != "rotations"}


def parse(fields: Mapping[str, Any], where: str) -> Transform:
    """What `Transform.fields` gave; where: the file and tag, for errors."""
    names = {field.name for field in dataclasses.fields(Transform)}
    if set(fields) | {"rotations"} != names:
        raise EmbodimentError(
            f"{where}'s transform must have exactly {sorted(names)} (rotations may be absent), got {sorted(fields)}"
        )
    return Transform(**{**fields, "video_keys": tuple(fields["video_keys"])})


def official(tag: str, video_keys: tuple[str, ...], keys: Sequence[str]) -> Transform:
    """The transform of GR00T's official robot fine-tunes: min_max for every "state.KEY" and "action.KEY", but for the
    keys that a shipped configuration treats otherwise."""
    projector = PROJECTORS.get(tag, PROJECTORS["new_embodiment"])
    modes = {key: MODES.get(tag, {}).get(key, "min_max") for key in keys}
    rotations = {key: target for key, target in ROTATIONS.get(tag, {}).items() if key in keys}
    return Transform(video_keys, 0.95, 224, 12, modes, projector, 16, "bracketed", rotations)
