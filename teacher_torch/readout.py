"""Local readout of image tokens: each token alone must tell the colours of the cells under its own patch.

It stands in for what SigLIP's pre-training brings to the real teacher; it is thrown away after the stand-in is trained.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bridge import arc

CODES = arc.OUTSIDE + 1  # ten colours and "outside the grid"


class CellReadout(nn.Module):
    """Linear map of one token [d] to the cells whose centres lie under its patch."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        token = ((np.arange(arc.SIDE) + 0.5) * grid / arc.SIDE).astype(int)
        first = np.searchsorted(token, token)
        slot = np.arange(arc.SIDE) - first
        self.side = int(slot.max()) + 1
        self.linear = nn.Linear(width, self.side**2 * CODES)
        self.register_buffer("token", torch.tensor(token[:, None] * grid + token), persistent=False)
        self.register_buffer("slot", torch.tensor(slot[:, None] * self.side + slot), persistent=False)

    def forward(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Image tokens [n, grid * grid, d] -> logits [n, 30, 30, 11]."""
        logits = self.linear(image_tokens).unflatten(-1, (-1, CODES))
        return logits[:, self.token, self.slot]

    def loss(self, image_tokens: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, mean over all cells; cells int64 [n, 30, 30]."""
        return F.cross_entropy(self(image_tokens).flatten(0, 2), cells.flatten())
