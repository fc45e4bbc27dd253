"""Sizes of the student: what it imitates and what it is made of; `student_jax.presets` has them by name."""

import dataclasses
from typing import Literal

from student_jax import irp, sizes


@dataclasses.dataclass(frozen=True)
class Target:
    """The teacher's image tokens for one frame: tiles row-major, then the thumbnail; tokens row-major in a tile."""

    width: int
    """Channels of a token."""
    grid: int
    """Tokens along a side of a tile."""
    columns: int = 1
    """Tiles across the frame."""
    rows: int = 1
    """Tiles down the frame."""
    thumbnail: bool = False
    """Whether a tile of the whole frame follows."""

    def __post_init__(self):
        if min(self.width, self.grid, self.columns, self.rows) < 1:
            raise ValueError(f"Target needs width, grid, columns and rows of at least 1; got {self}.")

    @property
    def tiles(self) -> int:
        return self.columns * self.rows + self.thumbnail

    @property
    def tokens(self) -> int:
        return self.tiles * self.grid * self.grid


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The Vision IRP."""

    canvas: int
    """Side in pixels to which every frame is stretched."""
    patch: int
    """Side of a patch in canvas pixels; the student's own tokens are (canvas / patch)^2."""
    width: int
    """Channels of the student's tokens."""
    heads: int
    """Attention heads."""
    mlp: int
    """Hidden width of the blocks' MLPs."""
    stem_blocks: int
    """Transformer blocks before the first valid state."""
    step_blocks: int
    """Transformer blocks of one refinement step, shared by all steps."""
    max_steps: int
    """Refinement steps at most."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute dtype of matrix products; parameters, accumulation, norms and softmax are float32."""
    objects: int = 0
    """Objects whose place is told, from simulator truth; 0 leaves that head out."""
    crop: bool = False
    """Whether a smaller frame is the top left of the canvas, with fewer tokens, instead of being stretched to it."""

    def __post_init__(self):
        if self.canvas % self.patch or self.width % self.heads:
            raise ValueError(f"VisionConfig needs canvas divisible by patch and width by heads; got {self}.")
        if min(self.stem_blocks, self.step_blocks, self.max_steps) < 1 or self.objects < 0:
            raise ValueError(f"VisionConfig needs stem_blocks, step_blocks and max_steps of at least 1; got {self}.")

    @property
    def grid(self) -> int:
        return self.canvas // self.patch


@dataclasses.dataclass(frozen=True)
class Reserve:
    """Values set aside for modules that are still to come, counted against the size limit of a preset."""

    text: int = 0
    """Token embedding."""
    language: int = 0
    """Language IRP."""
    h_module: int = 0
    """H-module, orchestrator, trust gates."""
    control: int = 0
    """Control IRP and the per-embodiment projections."""
    grid: int = 0
    """Grid IRP."""
    tables: int = 0
    """Budget, trust and de-standardisation tables of those modules."""

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """The whole student. A module is present when its field is set."""

    vision: VisionConfig
    target: Target
    halt: irp.Halt = irp.Halt()  # noqa: RUF009 - frozen
    """When refinement stops before the budget does."""
    reserve: Reserve = Reserve()
    """Size set aside for later modules."""
    language: sizes.LanguageConfig | None = None
    """Reads the instruction; it needs the vision alone."""
    control: sizes.ControlConfig | None = None
    """Acts; it needs the language and `actions`."""
    actions: sizes.ActionSpace | None = None
    """What the control says."""
    grid: sizes.GridConfig | None = None
    """Solves grids; it needs the vision alone."""
    h_module: sizes.HConfig | None = None
    """Orchestrates all of them; it needs the control."""
    seed: sizes.SeedConfig | None = None
    """The user's original student instead of all these modules: a baseline, not SAGE."""

    def __post_init__(self):
        if self.h_module and not self.control:
            raise ValueError("StudentConfig with an H-module needs a control: there is nothing else to orchestrate.")
        if self.control and not self.language:
            raise ValueError("StudentConfig with a control needs a language: the control reads its fused tokens.")
        if bool(self.control) != bool(self.actions):
            raise ValueError("StudentConfig needs control and actions together, or neither.")


@dataclasses.dataclass(frozen=True)
class Robot:
    """What the sizes of a student that acts depend on beside the preset."""

    actions: sizes.ActionSpace
    """The action chunk and the state."""
    frames: int = 2
    """Frames (times x views) of an observation at most."""
    objects: int = 0
    """Objects to tell the place of."""


def from_dict(tree: dict) -> StudentConfig:
    """Inverse of `dataclasses.asdict`, for a config read back from JSON.

    A missing or unknown field is an error, but what older versions did not have yet (language, control, actions,
    H-module, the vision's objects) may be missing: absent.
    """
    kinds = {
        "language": sizes.LanguageConfig,
        "control": sizes.ControlConfig,
        "actions": sizes.ActionSpace,
        "grid": sizes.GridConfig,
        "h_module": sizes.HConfig,
        "seed": lambda **tree: sizes.SeedConfig(**tree | {"decoder": tuple(tree["decoder"])}),  # JSON has lists
    }
    try:
        rest = {name: tree[name] for name in tree if name not in ("vision", "target", "halt", "reserve")}
        return StudentConfig(
            VisionConfig(**tree["vision"]),
            Target(**tree["target"]),
            irp.Halt(**tree["halt"]),
            Reserve(**tree["reserve"]),
            **{name: value and kinds[name](**value) for name, value in rest.items()},
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"Not a student config: {error}. Write it with dataclasses.asdict and the same version."
        ) from error
