"""Blocks of the grid decoder: attention that knows places and roles, and what single cells find in a token."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

TEXT, SHOWN_INPUT, SHOWN_OUTPUT, ASKED = range(4)  # role of a token: prompt text, or part of one of the frames
ROLES = 4
GEOMETRY = 4 + ROLES  # of a head's query and key channels: distance, then the role
SLOTS = 4  # parts of a patch, per axis: enough for patches of four cells
SLOT_WIDTH = 32
SHRINKAGE, LIMIT = 1e-3, 10.0  # of the whitening
CODES = 11  # ten colours and "outside the grid"
REACH = (1.5, 3.0, 10.0, 40.0)  # cells: initial standard deviation of the heads' attention, in turn


@dataclasses.dataclass(frozen=True)
class Seen:
    """What queries look at: tokens [b, n, w], place [b, n, 2], role one-hot [b, n, ROLES], valid [b, n]."""

    tokens: torch.Tensor
    place: torch.Tensor
    role: torch.Tensor
    valid: torch.Tensor


class Attention(nn.Module):
    """Attention whose logits also hold, per head, a learned preference for near tokens and for roles.

    -|p - q|^2 / (2 reach^2) needs no map of its own: it is the dot product of (2p, -1, -|p|^2) and (q, |q|^2, 1), over
    2 reach^2. Text lies nowhere: its key is (0, 0, 0), so no query prefers or avoids it by place.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, width // heads
        content = heads * (self.dim - GEOMETRY)
        self.query, self.key = nn.Linear(width, content), nn.Linear(width, content)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.log_reach = nn.Parameter(torch.tensor([REACH[i % len(REACH)] for i in range(heads)]).log())
        self.role = nn.Parameter(torch.zeros(heads, ROLES))

    def forward(self, x: torch.Tensor, place: torch.Tensor, seen: Seen) -> torch.Tensor:
        """Queries x [b, q, w] at place [b, q, 2] look at what is seen: [b, q, w]."""
        query = torch.cat([self._split(self.query(x)), self._query_geometry(place)], -1)
        key = torch.cat([self._split(self.key(seen.tokens)), self._key_geometry(seen)], -1)
        value, mask = self._split(self.value(seen.tokens)), seen.valid[:, None, None, :]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(found.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [b, heads, tokens, dim]

    def _query_geometry(self, place: torch.Tensor) -> torch.Tensor:
        b, q, _ = place.shape
        near = torch.cat([2 * place, -torch.ones_like(place[..., :1]), -_square(place)], -1)[:, None]
        near = near * (0.5 * torch.exp(-2 * self.log_reach))[None, :, None, None]
        role = self.role[None, :, None].expand(b, -1, q, -1)
        return torch.cat([near, role], -1) * self.dim**0.5  # scaled_dot_product_attention divides by it

    def _key_geometry(self, seen: Seen) -> torch.Tensor:
        somewhere = 1 - seen.role[..., TEXT : TEXT + 1]
        near = torch.cat([seen.place, _square(seen.place), torch.ones_like(somewhere)], -1) * somewhere
        return torch.cat([near, seen.role], -1)[:, None].expand(-1, self.heads, -1, -1)


def _square(place: torch.Tensor) -> torch.Tensor:
    return place.square().sum(-1, keepdim=True)


class Block(nn.Module):
    """Look at the records, at the other queries, then a gated feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.records, self.others = Attention(width, heads), Attention(width, heads)
        self.gate, self.up = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, place: torch.Tensor, memory: Seen, valid: torch.Tensor) -> torch.Tensor:
        """Queries x [b, q, w] at place [b, q, 2], of which valid [b, q] are looked at by the others."""
        x = x + self.records(self.norms[0](x), place, memory)
        y = self.norms[1](x)
        x = x + self.others(y, place, Seen(y, place, y.new_zeros(*y.shape[:2], ROLES), valid))
        y = self.norms[2](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Whitening(nn.Module):
    """Features without the mean and covariance of a sample, so that faint directions are learned as fast as strong.

    Directions with less than SHRINKAGE of the mean variance stay faint; values beyond LIMIT deviations are cut off.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    def fit(self, sample: torch.Tensor) -> None:
        """Take mean and covariance from features [n, d]."""
        sample = sample.double()
        values, vectors = torch.linalg.eigh(torch.cov(sample.T))
        scale = (values.clamp(min=0) + SHRINKAGE * values.mean()).rsqrt()
        self.mean.copy_(sample.mean(0))
        self.matrix.copy_((vectors * scale) @ vectors.T)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., d], float32."""
        return ((features.float() - self.mean) @ self.matrix).clamp(-LIMIT, LIMIT)


class CellSlots(nn.Module):
    """Cuts what a token tells into SLOTS x SLOTS parts of its patch, so that each cell under it finds its own.

    Without it, cells learn slowly which of the colours that one token tells is theirs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.split, self.out = nn.Linear(width, SLOTS**2 * SLOT_WIDTH), nn.Linear(SLOT_WIDTH, width)
        self.colour = nn.Linear(SLOT_WIDTH, CODES)

    def forward(
        self, tokens: torch.Tensor, first: torch.Tensor, token: torch.Tensor, slot: torch.Tensor
    ) -> torch.Tensor:
        """Slots [b, f, 30, 30, SLOT_WIDTH] of the cells of some frames.

        tokens [b, n, w]; first int64 [b, f], where each frame's tokens begin; token, slot int64 [30, 30], which of the
        frame's tokens lies over a cell and which part of its patch the cell is in.
        """
        index = first[..., None] + torch.arange(int(token.max()) + 1, device=first.device)  # [b, f, t]
        rows = torch.arange(len(tokens), device=first.device)[:, None, None]
        parts = self.split(tokens[rows, index]).unflatten(-1, (SLOTS**2, SLOT_WIDTH))
        return parts[:, :, token, slot]
