"""From episodes to the decoder's context: where each token of a prompt lies, and a task's records side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from bridge import arc
from teacher_torch import arc_inputs, decoder, grid_blocks
from teacher_torch.arc_batches import Episode
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.model import Groot
from teacher_torch.groot.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What records with as many frames share: ids, role int64 [s]; place float32 [s, 2]; first token of each frame."""

    ids: torch.Tensor
    role: torch.Tensor
    place: torch.Tensor
    first: list[int]


class Layout:
    """How one teacher is given ARC records: demonstrations (`shown`) and queries (`asked`)."""

    def __init__(self, config: GrootConfig, tokenizer: Tokenizer, *, max_tiles: int, padding: str = "white") -> None:
        self.preparer = arc_inputs.Preparer(config, tokenizer, max_tiles=max_tiles, padding=padding)
        self.places = _places(config.grid, self.preparer.columns, self.preparer.rows)
        self.cell_token, self.cell_slot = _cells(config.grid, self.preparer.columns)
        self.image_id = tokenizer.image_id
        self.shown = self._prompt([grid_blocks.SHOWN_INPUT, grid_blocks.SHOWN_OUTPUT])
        self.asked = self._prompt([grid_blocks.ASKED])

    def _prompt(self, roles: list[int]) -> Prompt:
        blank = np.full((len(roles), arc.SIDE, arc.SIDE), arc.OUTSIDE, np.uint8)
        ids = self.prepare([blank]).input_ids[0]
        image = ids == self.image_id
        role, place = torch.full_like(ids, grid_blocks.TEXT), torch.zeros(len(ids), 2)
        role[image] = torch.tensor(roles).repeat_interleave(len(self.places))
        place[image] = self.places.repeat(len(roles), 1)
        return Prompt(ids, role, place, image.nonzero()[:: len(self.places), 0].tolist())

    def prepare(self, frames: Sequence[np.ndarray]) -> arc_inputs.ModelInputs:
        """Model inputs of records that are given by their cells, uint8 [frames, 30, 30], equally many frames each."""
        return self.preparer.prepare([arc.Record("", 0, "", cells) for cells in frames])


def _places(grid: int, columns: int, rows: int) -> torch.Tensor:
    """Centres (row, column), in cells, of the tokens of one frame: tiles row-major, then the thumbnail if any."""

    def lattice(top: float, left: float, side: float) -> torch.Tensor:
        steps = (torch.arange(grid) + 0.5) * side / grid
        return torch.cartesian_prod(top + steps, left + steps)

    side = arc.SIDE / rows  # an ARC picture is square, so there are as many columns
    tiles = [lattice(r * side, c * side, side) for r in range(rows) for c in range(columns)]
    return torch.cat([*tiles, lattice(0, 0, arc.SIDE)] if len(tiles) > 1 else tiles)


def _cells(grid: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(token, slot) int64 [30, 30]: which of a frame's tokens lies over a cell's centre, in which part of its patch."""
    along = (torch.arange(arc.SIDE) + 0.5) * columns * grid / arc.SIDE  # in patches
    patch, part = along.long(), (along.frac() * grid_blocks.SLOTS).long()
    tile, inner = patch // grid, patch % grid
    tile = tile[:, None] * columns + tile
    token = tile * grid**2 + inner[:, None] * grid + inner
    return token, part[:, None] * grid_blocks.SLOTS + part


def context(layout: Layout, shown: Sequence[Sequence[torch.Tensor]], asked: Sequence[torch.Tensor]) -> decoder.Context:
    """Per task: features [s, d] of its demonstrations and of its one query, joined and padded to the longest task."""
    rows = [_row(layout, len(demonstrations)) for demonstrations in shown]
    features = _pad([torch.cat([*row, query]) for row, query in zip(shown, asked, strict=True)], 0.0)
    valid, role, pair, place, first = (
        _pad([row[i] for row in rows], value) for i, value in enumerate((False, grid_blocks.TEXT, 0, 0.0, -1))
    )
    rest = (valid, role, pair, place, first, layout.cell_token, layout.cell_slot)
    return decoder.Context(features, *(part.to(features.device) for part in rest))


def _row(layout: Layout, demonstrations: int) -> tuple[torch.Tensor, ...]:
    """(valid, role, pair, place, first) of a task with so many demonstrations, its query last in the sequence."""
    prompts = [layout.shown] * demonstrations + [layout.asked]
    numbers = [*range(demonstrations), 0]
    starts = [i * len(layout.shown.ids) for i in range(len(prompts))]
    frames = [start + place for start, prompt in zip(starts, prompts, strict=True) for place in prompt.first]
    role = torch.cat([prompt.role for prompt in prompts])
    pair = torch.cat([torch.full_like(p.role, i) for p, i in zip(prompts, numbers, strict=True)])
    place = torch.cat([prompt.place for prompt in prompts])
    return torch.ones_like(role, dtype=torch.bool), role, pair, place, torch.tensor([frames[-1], *frames[:-1]])


def _pad(rows: list[torch.Tensor], value: float) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def read(model: Groot, layout: Layout, episodes: Sequence[Episode]) -> decoder.Context:
    """Context of the episodes, with gradients to the language model; the vision tower is left as it is.

    All records of one kind go through the language model together, whatever task they are of.
    """
    demonstrations = [frames for episode in episodes for frames in episode.shown]
    shown = _features(model, layout, demonstrations).split([len(episode.shown) for episode in episodes])
    asked = _features(model, layout, [episode.asked for episode in episodes])
    return context(layout, [list(records) for records in shown], list(asked))


def _features(model: Groot, layout: Layout, frames: list[np.ndarray]) -> torch.Tensor:
    given = layout.prepare(frames).to(model.connector.weight.device)
    with torch.no_grad():
        image_tokens = model.vision(given.pixel_values)[0]
    return model.read(model.embed(given.input_ids, image_tokens), given.attention_mask)


def answers(episodes: Sequence[Episode]) -> tuple[torch.Tensor, torch.Tensor]:
    """(target int64 [b, h, w] on the smallest canvas that holds every answer, size int64 [b, 2])."""
    size = torch.tensor([episode.answer.shape for episode in episodes])
    target = torch.zeros(len(episodes), *size.amax(0).tolist(), dtype=torch.long)
    for canvas, episode in zip(target, episodes, strict=True):
        height, width = episode.answer.shape
        canvas[:height, :width] = torch.tensor(episode.answer)
    return target, size


def frames(episodes: Sequence[Episode]) -> torch.Tensor:
    """The cells that the records show, int64 [b, f, 30, 30] in the order of Context.first, -1 where there are fewer."""
    return _pad([torch.tensor(np.concatenate([e.asked, *e.shown])).long() for e in episodes], -1)
