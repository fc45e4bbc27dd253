"""Sizes of the modules that read an instruction, act, solve grids and orchestrate, and of an action space."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ActionSpace:
    """What a Control IRP says and what it knows of the robot; only dimensions that the embodiment uses."""

    horizon: int
    """Actions in a chunk."""
    width: int
    """Numbers of one action, in normalised units."""
    state: int
    """Numbers of the robot's state."""

    def __post_init__(self):
        if min(self.horizon, self.width, self.state) < 1:
            raise ValueError(f"ActionSpace needs horizon, width and state of at least 1; got {self}.")


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """The Language IRP."""

    vocabulary: int
    """Rows of the token embedding; the tokenizer has at most as many pieces."""
    embedding: int
    """Channels of a token before it is widened to `width`."""
    length: int
    """Text tokens at most."""
    frames: int
    """Frames (times x views) at most; each has its own embedding."""
    width: int
    """Channels of the fused tokens."""
    heads: int
    """Attention heads."""
    mlp: int
    """Hidden width of the blocks' MLPs."""
    text_blocks: int
    """Transformer blocks over the text alone."""
    step_blocks: int
    """Transformer blocks of one refinement step over text and image together, shared by all steps."""
    max_steps: int = 2
    """Refinement steps at most."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute dtype of matrix products."""

    def __post_init__(self):
        sizes = (self.vocabulary, self.embedding, self.length, self.frames, self.step_blocks, self.max_steps)
        if self.width % self.heads or min(sizes) < 1 or self.text_blocks < 0:
            raise ValueError(f"LanguageConfig needs width divisible by heads and sizes of at least 1; got {self}.")


@dataclasses.dataclass(frozen=True)
class ControlConfig:
    """The Control IRP."""

    width: int
    """Channels of an action's token."""
    heads: int
    """Attention heads."""
    mlp: int
    """Hidden width of the blocks' MLPs."""
    blocks: int
    """Blocks of one refinement step, shared by all steps."""
    max_steps: int
    """Refinement steps at most."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute dtype of matrix products."""

    def __post_init__(self):
        if self.width % self.heads or min(self.width, self.mlp, self.blocks, self.max_steps) < 1:
            raise ValueError(f"ControlConfig needs width divisible by heads and sizes of at least 1; got {self}.")


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """The Grid IRP. There is a token for every one of the Vision IRP's."""

    cells: int
    """Side of the canvas in cells."""
    width: int
    """Channels of its tokens."""
    heads: int
    """Attention heads."""
    mlp: int
    """Hidden width of the blocks' MLPs."""
    pair_blocks: int
    """Blocks over each pair on its own."""
    step_blocks: int
    """Blocks of one refinement step, shared by all steps."""
    max_steps: int = 1
    """Refinement steps at most."""
    symmetries: bool = True
    """Whether a cell is given what lies at its image under the square's symmetries."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute dtype of matrix products."""

    def __post_init__(self):
        sizes = (self.cells, self.width, self.mlp, self.pair_blocks, self.step_blocks, self.max_steps)
        if self.width % self.heads or min(sizes) < 1:
            raise ValueError(f"GridConfig needs width divisible by heads and sizes of at least 1; got {self}.")


@dataclasses.dataclass(frozen=True)
class HConfig:
    """The H-module."""

    width: int
    """Channels of its tokens and queries."""
    heads: int
    """Attention heads."""
    mlp: int
    """Hidden width of its blocks' MLPs."""
    blocks: int = 1
    """Times its queries read everything."""
    price: float = 0.6
    """What all refinement steps together cost, in units of the logarithm of the action error: steps that are the last
    half of the cost must bring the error down by a quarter to be worth it."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute dtype of matrix products."""

    def __post_init__(self):
        if self.width % self.heads or min(self.width, self.mlp, self.blocks) < 1 or self.price < 0:
            raise ValueError(f"HConfig needs width divisible by heads, sizes of at least 1, price >= 0; got {self}.")


@dataclasses.dataclass(frozen=True)
class SeedConfig:
    """The user's original student of ARC's grids (`student_jax.seed`)."""

    frames: int = 9
    """Frames at most: four demonstrations and the query."""
    width: int = 512
    """Channels of its tokens."""
    heads: int = 8
    """Attention heads."""
    layers: int = 6
    """Transformer blocks."""
    mlp: int = 2048
    """Hidden width of the blocks' MLPs."""
    decoder: tuple[int, ...] = (1024, 2048)
    """Hidden widths between the mean and the cells."""
    dropout: float = 0.1
    """Of what each block adds, in training."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute dtype of matrix products."""

    def __post_init__(self):
        if self.width % self.heads or min(self.frames, self.width, self.layers, self.mlp, *self.decoder) < 1:
            raise ValueError(f"SeedConfig needs width divisible by heads and sizes of at least 1; got {self}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"SeedConfig.dropout is {self.dropout}, expected 0 or more and less than 1.")
