"""Where are the task's objects? A readout of image tokens, for the stand-in's vision pre-training."""

import torch
import torch.nn.functional as F
from torch import nn


class Sight(nn.Module):
    """Per view and object a distribution over image tokens (its mean, and an offset in it, is the place); from what
    all views' tokens say there, the object's position in space."""

    def __init__(self, width: int, grid: int, *, views: int, objects: int) -> None:
        super().__init__()
        self.grid, self.views, self.objects = grid, views, objects
        self.norm = nn.LayerNorm(width)
        self.where = nn.Linear(width, objects)
        self.offset = nn.Linear(width, 2 * objects)
        self.space = nn.Sequential(nn.Linear(views * objects * width, 128), nn.GELU(), nn.Linear(128, 3 * objects))
        at = (torch.arange(grid) + 0.5) / grid
        self.register_buffer("centres", torch.cartesian_prod(at, at), persistent=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image tokens [b * v, t, d] -> logits [b * v, t, o], places [b * v, o, 2] in 0..1, space [b, o, 3]."""
        tokens = self.norm(tokens.float())
        logits = self.where(tokens)
        share = logits.softmax(1)
        offset = self.offset(tokens).unflatten(-1, (self.objects, 2))
        place = torch.einsum("nto,tc->noc", share, self.centres)
        place = place + torch.einsum("nto,ntoc->noc", share, offset) / self.grid
        said = torch.einsum("nto,ntd->nod", share, tokens)
        return logits, place, self.space(said.reshape(len(tokens) // self.views, -1)).unflatten(-1, (self.objects, 3))

    def loss(self, tokens: torch.Tensor, pixels: torch.Tensor, objects: torch.Tensor) -> dict[str, torch.Tensor]:
        """tokens [b * v, t, d]; pixels [b, v, o, 2] in 0..1 where in sight; objects [b, o, 3], of about unit size.

        NaN is unknown; what is out of sight or unknown costs nothing.
        """
        logits, place, space = self(tokens)
        pixels = pixels.flatten(0, 1)
        seen = ((pixels > 0) & (pixels < 1)).all(-1)
        cell = (pixels[seen] * self.grid).long()
        found = F.cross_entropy(logits.transpose(1, 2)[seen], cell[:, 0] * self.grid + cell[:, 1], reduction="sum")
        near = F.smooth_l1_loss(place[seen] * self.grid, pixels[seen] * self.grid, reduction="sum")
        known = objects.isfinite()
        far = F.mse_loss(space[known], objects[known], reduction="sum")
        some = seen.sum().clamp(min=1)
        return {"found": found / some, "near": near / some, "space": 10 * far / known.sum().clamp(min=1)}
