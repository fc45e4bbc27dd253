"""Where an image token lies in its frame: tiles row by row, tokens row by row in each, the thumbnail last."""

import dataclasses

import numpy as np
from PIL import Image

PIXELS = 14  # side of a token's own picture after averaging; a SigLIP patch has as many


@dataclasses.dataclass(frozen=True)
class Layout:
    """A frame is cut into `columns` x `rows` tiles of `grid` x `grid` tokens; a thumbnail is one more tile."""

    grid: int
    columns: int = 1
    rows: int = 1
    thumbnail: bool = False

    @property
    def tiles(self) -> int:
        """Tiles of a frame, the thumbnail among them."""
        return self.columns * self.rows + self.thumbnail

    @property
    def tokens(self) -> int:
        """Tokens of a frame."""
        return self.tiles * self.grid**2

    def picture(self, tokens: np.ndarray) -> np.ndarray:
        """Values per token [tokens, ...] as a picture [rows * grid, columns * grid, ...], without the thumbnail."""
        whole = tokens[: self.columns * self.rows * self.grid**2]
        split = whole.reshape(self.rows, self.columns, self.grid, self.grid, *tokens.shape[1:])
        return split.swapaxes(1, 2).reshape(self.rows * self.grid, self.columns * self.grid, *tokens.shape[1:])

    def patches(self, frames: np.ndarray, *, pixels: int = PIXELS) -> np.ndarray:
        """Each token's own picture: uint8 [b, h, w, 3] -> float32 [b, tokens, pixels² * 3] in [0, 1]."""
        parts = [self._tiles(frames, self.columns, self.rows, pixels)]
        if self.thumbnail:
            parts.append(self._tiles(frames, 1, 1, pixels))
        return np.concatenate(parts, axis=1)

    def touched(self, mask: np.ndarray) -> np.ndarray:
        """Which tokens see any of a mask: bool [b, h, w] -> bool [b, tokens]."""
        parts = [self._touched(mask, self.columns, self.rows)]
        if self.thumbnail:
            parts.append(self._touched(mask, 1, 1))
        return np.concatenate(parts, axis=1)

    def _touched(self, mask: np.ndarray, columns: int, rows: int) -> np.ndarray:
        b, h, w = mask.shape
        high, wide = rows * self.grid, columns * self.grid
        fine = np.repeat(np.repeat(mask, high, axis=1), wide, axis=2)  # whole pixels in every token
        seen = fine.reshape(b, high, h, wide, w).any((2, 4))
        return seen.reshape(b, rows, self.grid, columns, self.grid).swapaxes(2, 3).reshape(b, -1)

    def _tiles(self, frames: np.ndarray, columns: int, rows: int, pixels: int) -> np.ndarray:
        size = (columns * self.grid * pixels, rows * self.grid * pixels)
        small = np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BOX)) for f in frames])
        split = small.reshape(len(frames), rows, self.grid, pixels, columns, self.grid, pixels, 3)
        ordered = np.einsum("brypcxqk->brcyxpqk", split)
        return ordered.reshape(len(frames), -1, pixels * pixels * 3).astype(np.float32) / 255
