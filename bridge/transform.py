"""How a policy's observations become model inputs: cameras, crop, size, tiles and normalisation modes."""

import dataclasses
from collections.abc import Mapping, Sequence

from bridge import normalisation

STYLES = ("plain", "bracketed")
PROJECTORS = {"new_embodiment": 31, "oxe_droid": 17, "agibot_genie1": 26, "gr1": 24, "so100": 2, "unitree_g1": 3}
PROJECTOR_SLOTS = 32


class EmbodimentError(ValueError):
    """An embodiment or its metadata file that cannot be used; the message says what came and the fix."""


@dataclasses.dataclass(frozen=True)
class Transform:
    """How observations become model inputs.

    video_keys: camera names in the order in which they are shown; crop: share of each side kept (None: all);
    resize: side in pixels after the crop (None: the image is tiled as it is); max_tiles: most tiles per image;
    normalisation: mode per "state.KEY" or "action.KEY"; projector_id: row of the head's per-embodiment tables;
    horizon: actions per chunk; instruction_style: "plain" or "bracketed" (['text'], as official robot runs render it).
    """

    video_keys: tuple[str, ...]
    crop: float | None
    resize: int | None
    max_tiles: int
    normalisation: Mapping[str, str]
    projector_id: int
    horizon: int
    instruction_style: str

    def __post_init__(self) -> None:
        if unknown := {k: m for k, m in self.normalisation.items() if m not in normalisation.MODES}:
            raise EmbodimentError(f"normalisation must be one of {', '.join(normalisation.MODES)}, got {unknown}")
        if self.instruction_style not in STYLES:
            raise EmbodimentError(f"instruction_style must be one of {STYLES}, got {self.instruction_style!r}")
        if not 0 <= self.projector_id < PROJECTOR_SLOTS:
            raise EmbodimentError(f"projector_id must be in 0..{PROJECTOR_SLOTS - 1}, got {self.projector_id}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise EmbodimentError(f"crop must be in (0, 1] or null, got {self.crop}")
        if self.max_tiles < 1 or self.horizon < 1 or (self.resize is not None and self.resize < 1):
            raise EmbodimentError("max_tiles, horizon and resize must be at least 1")


def official(tag: str, video_keys: tuple[str, ...], keys: Sequence[str]) -> Transform:
    """The transform of GR00T's official robot fine-tunes: min_max for every "state.KEY" and "action.KEY"."""
    projector = PROJECTORS.get(tag, PROJECTORS["new_embodiment"])
    return Transform(video_keys, 0.95, 224, 12, dict.fromkeys(keys, "min_max"), projector, 16, "bracketed")
