"""The grid decoder: a task's records of backbone features in, the asked output grid out. It is also the ARC probe.

Learned queries, one per cell of the canvas, attend to every token of every record and to each other: nothing is pooled.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from teacher_torch.grid_blocks import ROLES, TEXT, Block, CellSlots, Seen, Whitening

SIDE = 30  # the largest height and width of a grid
COLOURS = 10
MOST_FITTED = 512  # tokens of a context that the whitening is fitted to, evenly spaced
WEIGHTS, CONFIG = "decoder.safetensors", "decoder.json"


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes: channels of the features, width, attention heads, blocks over cells, and the most pairs of a task."""

    features: int
    width: int = 128
    heads: int = 4
    layers: int = 3
    size_layers: int = 2
    pairs: int = 16


@dataclasses.dataclass(frozen=True)
class Context:
    """All tokens of the records of b tasks, each task's one query among them, padded to n tokens.

    features: float [b, n, d]; valid: bool [b, n]; role: int64 [b, n] in 0..ROLES-1; pair: int64 [b, n], which
    demonstration (0 for the query); place: float32 [b, n, 2], the token's centre as (row, column) in cells, 0..30 (of
    text it means nothing); first: int64 [b, f], where the tokens of each frame begin, the query's frame first, -1 where
    a task has fewer frames; cell_token, cell_slot: int64 [30, 30], which of a frame's tokens lies over a cell and
    which part of its patch the cell is in.
    """

    features: torch.Tensor
    valid: torch.Tensor
    role: torch.Tensor
    pair: torch.Tensor
    place: torch.Tensor
    first: torch.Tensor
    cell_token: torch.Tensor
    cell_slot: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Logits:
    """size [b, 2, 30]; cells [b, h, w, 10] of the answer; colours [b, f, 30, 30, 11] of the frames that were shown."""

    size: torch.Tensor
    cells: torch.Tensor
    colours: torch.Tensor


class GridDecoder(nn.Module):
    """Size first, then cells. The size never depends on the cells, so that training and use see the same."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.whitening = Whitening(config.features)
        self.project = nn.Linear(config.features, width)
        self.roles, self.pairs = nn.Embedding(ROLES, width), nn.Embedding(config.pairs, width)
        self.from_start, self.from_end = nn.Embedding(2 * SIDE, width), nn.Embedding(2 * SIDE, width)
        self.side = nn.Embedding(2 * SIDE, width)
        self.slots = CellSlots(width)
        self.size_blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.size_layers))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.size_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.cell_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, COLOURS))
        for embedding in (self.roles, self.pairs, self.from_start, self.from_end, self.side):
            nn.init.normal_(embedding.weight, std=0.5)

    @torch.no_grad()
    def fit(self, contexts: Sequence[Context]) -> None:
        """Whiten by the image tokens of some tasks; to be called once, before training."""
        images = [context.features[context.valid & (context.role != TEXT)] for context in contexts]
        self.whitening.fit(torch.cat([tokens[:: -(-len(tokens) // MOST_FITTED)] for tokens in images]))

    def memory(self, context: Context) -> Seen:
        """What every block looks at."""
        tokens = self.project(self.whitening(context.features)) + self.roles(context.role) + self.pairs(context.pair)
        return Seen(tokens, context.place, F.one_hot(context.role, ROLES).float(), context.valid)

    def sizes(self, memory: Seen) -> torch.Tensor:
        """Logits [b, 2, 30] of height - 1 and width - 1, from one query per possible side, on that row or column."""
        b, device = len(memory.tokens), memory.tokens.device
        along = torch.arange(SIDE, device=device) + 0.5
        edge = torch.full_like(along, 0.5)
        place = torch.cat([torch.stack([along, edge], -1), torch.stack([edge, along], -1)]).expand(b, -1, -1)
        valid = torch.ones(b, 2 * SIDE, dtype=torch.bool, device=device)
        x = self.side.weight.expand(b, -1, -1)
        for block in self.size_blocks:
            x = block(x, place, memory, valid)
        return self.size_head(x).view(b, 2, SIDE)

    def colours(self, memory: Seen, context: Context) -> torch.Tensor:
        """Logits [b, f, 30, 30, 11] of what every frame itself shows, each cell told by the one token over it."""
        slots = self.slots(memory.tokens, context.first.clamp(min=0), context.cell_token, context.cell_slot)
        return self.slots.colour(slots)

    def cells(self, memory: Seen, context: Context, size: torch.Tensor) -> torch.Tensor:
        """Logits [b, h, w, 10] on the smallest canvas that holds every size; size int64 [b, 2] = (height, width).

        What lies outside a task's own size is neither looked at nor meaningful.
        """
        height, width = (int(side) for side in size.amax(0))
        row = torch.arange(height, device=size.device).repeat_interleave(width)
        column = torch.arange(width, device=size.device).repeat(height)
        index = torch.stack([row, column], -1)  # [cells, 2]
        left = (size[:, None] - 1 - index).clamp(min=0)  # [b, cells, 2], cells between this one and the far edges
        axis = torch.tensor([0, SIDE], device=size.device)
        place = (index + 0.5).expand(len(size), -1, -1)
        x = self.from_start(index + axis).sum(-2) + self.from_end(left + axis).sum(-2)
        slots = self.slots(memory.tokens, context.first[:, :1], context.cell_token, context.cell_slot)
        x = x + self.slots.out(slots[:, 0, :height, :width].flatten(1, 2))
        valid = (index < size[:, None]).all(-1)
        for block in self.blocks:
            x = block(x, place, memory, valid)
        return self.cell_head(x).view(len(size), height, width, COLOURS)

    def forward(self, context: Context, size: torch.Tensor) -> Logits:
        """Everything that is trained, with the cells laid out on the given true sizes."""
        memory = self.memory(context)
        return Logits(self.sizes(memory), self.cells(memory, context, size), self.colours(memory, context))

    @torch.inference_mode()
    def predict(self, context: Context) -> list[torch.Tensor]:
        """The b answers: int64 grids [h, w], of the likeliest size, each cell of the likeliest colour."""
        memory = self.memory(context)
        size = self.sizes(memory).argmax(-1) + 1
        colours = self.cells(memory, context, size).argmax(-1)
        return [grid[:h, :w] for grid, (h, w) in zip(colours, size.tolist(), strict=True)]


def loss(logits: Logits, target: torch.Tensor, size: torch.Tensor, shown: torch.Tensor) -> dict[str, torch.Tensor]:
    """{"size", "cells", "colours"}: cross-entropies, means over tasks.

    target: int64 [b, h, w] on the canvas of the cell logits, any value outside the grid, where nothing is counted: a
    task's cells are averaged inside its true grid alone. size: int64 [b, 2]. shown: int64 [b, f, 30, 30] in 0..10, the
    frames' own cells, -1 where a task has fewer frames; cells in and outside the grids weigh alike.
    """
    b, h, w, _ = logits.cells.shape
    rows = torch.arange(h, device=size.device)[None, :, None] < size[:, 0, None, None]
    columns = torch.arange(w, device=size.device)[None, None] < size[:, 1, None, None]
    inside = (rows & columns).float()
    colour = target.clamp(0, COLOURS - 1)
    each = F.cross_entropy(logits.cells.flatten(0, 2), colour.flatten(), reduction="none").view(b, h, w)
    return {
        "size": F.cross_entropy(logits.size.flatten(0, 1), (size - 1).flatten()),
        "cells": ((each * inside).sum((1, 2)) / inside.sum((1, 2))).mean(),
        "colours": (
            _colours(logits.colours, shown, shown < COLOURS) + _colours(logits.colours, shown, shown == COLOURS)
        )
        / 2,
    }


def _colours(logits: torch.Tensor, shown: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Mean over the frames' cells of one sort."""
    which = which & (shown >= 0)
    each = F.cross_entropy(logits.flatten(0, 3), shown.clamp(min=0).flatten(), reduction="none").view_as(shown)
    return (each * which).sum() / which.sum().clamp(min=1)


def save(decoder: GridDecoder, folder: pathlib.Path) -> None:
    """Write decoder.json and decoder.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(dataclasses.asdict(decoder.config), indent=1))
    state = {name: value.detach().cpu().contiguous() for name, value in decoder.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS)


def load(folder: pathlib.Path) -> GridDecoder:
    """The decoder that `save` wrote, in eval mode; FileNotFoundError or ValueError where there is none that fits."""
    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"no grid decoder in {folder}: {', '.join(missing)} missing. "
            "Train one: python -m teacher_torch.posttrain --task arc (--teacher FOLDER for another teacher)"
        )
    decoder = GridDecoder(DecoderConfig(**json.loads((folder / CONFIG).read_text())))
    try:
        decoder.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise ValueError(
            f"the grid decoder in {folder} is of an earlier version of this project; train it again: python -m "
            "teacher_torch.posttrain --task arc (--teacher FOLDER for one over a teacher that stays as it is)"
        ) from error
    return decoder.eval()
