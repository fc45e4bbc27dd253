"""Transformer blocks of the action head: the adapter's, and the DiT's with adaptive norms.

Module names follow the official state dict (attn1.to_q, ff.net.0.proj, ...).
"""

import torch
import torch.nn.functional as F
from torch import nn

KeyValue = tuple[torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """Multi-head attention without positions; keys and values may be computed beforehand."""

    def __init__(self, width: int, heads: int, *, context: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(context, width)
        self.to_v = nn.Linear(context, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Dropout(dropout)])

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [b, n, t, d / n]

    def keys_values(self, context: torch.Tensor) -> KeyValue:
        """Keys and values [b, n, s, d / n] of a context [b, s, d]."""
        return self._split(self.to_k(context)), self._split(self.to_v(context))

    def forward(self, x: torch.Tensor, key_value: KeyValue, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x [b, t, d] attends to the given keys and values; mask: bool [b, s], False hides one (not official)."""
        seen = None if mask is None else mask[:, None, None]
        y = F.scaled_dot_product_attention(self._split(self.to_q(x)), *key_value, attn_mask=seen)
        y = y.transpose(1, 2).flatten(2)
        return self.to_out[1](self.to_out[0](y))

    def rows(self, x: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Attention weights of the queries x [b, t, d] alone: float32 [b, n, t, s]."""
        query = self._split(self.to_q(x)).float()
        return (query @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)


class Gelu(nn.Module):
    """Linear and tanh-approximated GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """width -> 4 width -> width."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        parts = [Gelu(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width), nn.Dropout(dropout)]
        self.net = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class AdaptiveNorm(nn.Module):
    """LayerNorm without weights, scaled and shifted by the timestep (scale first)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps=1e-5, elementwise_affine=False)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        scale, shift = self.linear(F.silu(time)).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class AdapterBlock(nn.Module):
    """Bidirectional self-attention over the context, with affine norms."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attn1 = Attention(width, heads, context=width, dropout=dropout)
        self.final_dropout = nn.Dropout(dropout)
        self.norm3 = nn.LayerNorm(width, eps=1e-5)
        self.ff = FeedForward(width, dropout=dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        normed = self.norm1(x)
        x = x + self.final_dropout(self.attn1(normed, self.attn1.keys_values(normed), mask))
        return x + self.ff(self.norm3(x))


class DitBlock(nn.Module):
    """Attention (to the context where `cross`, to itself otherwise) under an adaptive norm, then feed-forward."""

    def __init__(self, width: int, heads: int, *, context: int | None, dropout: float) -> None:
        super().__init__()
        self.cross = context is not None
        self.norm1 = AdaptiveNorm(width)
        self.attn1 = Attention(width, heads, context=context or width, dropout=dropout)
        self.final_dropout = nn.Dropout(dropout)
        self.norm3 = nn.LayerNorm(width, eps=1e-5, elementwise_affine=False)
        self.ff = FeedForward(width, dropout=dropout)

    def forward(
        self, x: torch.Tensor, time: torch.Tensor, key_value: KeyValue | None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        normed = self.norm1(x, time)
        if key_value is None:
            key_value, mask = self.attn1.keys_values(normed), None
        x = x + self.final_dropout(self.attn1(normed, key_value, mask))
        return x + self.ff(self.norm3(x))
