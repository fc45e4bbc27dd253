"""Model inputs of ARC records, equal to `inputs.prepare(arc.observation(record), ...)` and several times cheaper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bridge import arc, embodiment
from teacher_torch.groot import inputs
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.inputs import ModelInputs
from teacher_torch.groot.tokenizer import Tokenizer

PIXELS = 30  # of a cell in the teacher's picture, 900 x 900 in all


class Preparer:
    """Makes inputs for records of one kind at a time; the prompt of a kind is the same for every record."""

    def __init__(self, config: GrootConfig, tokenizer: Tokenizer, *, max_tiles: int, padding: str) -> None:
        self.config, self.padding = config, padding
        self.columns, self.rows = tile_grid(config, max_tiles)
        self.projector = embodiment.arc(max_tiles).transform.projector_id
        self._ids = {frames: torch.tensor(self._encode(tokenizer, frames)) for frames in (1, 2)}

    @property
    def tiles(self) -> int:
        """Tiles of a frame, the thumbnail included."""
        return tiles_of(self.columns, self.rows)

    def prepare(self, records: Sequence[arc.Record]) -> ModelInputs:
        """Inputs of records with equally many frames."""
        ids = self._ids[len(records[0].cells)].repeat(len(records), 1)
        state = torch.zeros(len(records), 1, self.config.head.state_dim)
        return ModelInputs(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.cat([self._pixels(frame) for record in records for frame in record.cells]),
            state=state,
            state_mask=(torch.arange(state.shape[-1]) < arc.STATE_WIDTH).expand(state.shape),
            embodiment_id=torch.full((len(records),), self.projector),
        )

    def _encode(self, tokenizer: Tokenizer, frames: int) -> list[int]:
        return tokenizer.encode(inputs.prompt(arc.INSTRUCTION, [self.tiles] * frames, self.config.tokens_per_tile))

    def _pixels(self, cells) -> torch.Tensor:
        """Tiles float32 [tiles, 3, tile, tile] of one frame [30, 30]."""
        tile = self.config.tile
        image = torch.tensor(arc.render(cells, pixels=1, padding=self.padding)).permute(2, 0, 1)[None]
        whole = _resized(image, self.rows * tile, self.columns * tile)
        tiles = whole.reshape(3, self.rows, tile, self.columns, tile).permute(1, 3, 0, 2, 4).flatten(0, 1)
        if len(tiles) > 1:
            tiles = torch.cat([tiles, _resized(image, tile, tile)])
        return (tiles.float() - 127.5) / 127.5


def tile_grid(config: GrootConfig, max_tiles: int) -> tuple[int, int]:
    """Columns and rows into which an ARC picture is cut."""
    side = arc.SIDE * PIXELS
    return inputs.tile_grid(side, side, tile=config.tile, max_tiles=max_tiles)


def tiles_of(columns: int, rows: int) -> int:
    """Tiles of a frame: a thumbnail follows where there are several."""
    return columns * rows + (columns * rows > 1)


def _resized(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """One pixel per cell, uint8 [1, 3, 30, 30], to what the 900 x 900 picture is resized to.

    torch resizes columns first and rounds to uint8 in between, and the 30 pixel rows of a cell are alike: one suffices.
    """
    wide = _bicubic(image.repeat_interleave(PIXELS, 3), arc.SIDE, width)
    return _bicubic(wide.repeat_interleave(PIXELS, 2), height, width)


def _bicubic(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(image.contiguous(), size=(height, width), mode="bicubic", antialias=True, align_corners=False)
