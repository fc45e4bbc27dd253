"""Layers of the twin, built from exported weights: products in one dtype, norms and the residual stream in float32."""

import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-6  # of every norm


class TwinError(ValueError):
    """An artifact that the twin cannot be; the message says why and what can."""


class Weights:
    """Exported arrays by dotted name. Each is taken once, so that `rest` tells what the twin has no use for."""

    def __init__(self, arrays: Mapping[str, torch.Tensor], prefix: str = "", taken: set[str] | None = None):
        self._arrays, self._prefix, self._taken = arrays, prefix, set() if taken is None else taken

    def within(self, name: str) -> "Weights":
        """Those of a part."""
        return Weights(self._arrays, f"{self._prefix}{name}.", self._taken)

    def each(self, name: str) -> Iterator["Weights"]:
        """Those of every item of a list, in order."""
        pattern = re.compile(re.escape(f"{self._prefix}{name}.") + r"(\d+)\.")
        found = {int(match[1]) for key in self._arrays if (match := pattern.match(key))}
        return (self.within(f"{name}.{index}") for index in sorted(found))

    def has(self, name: str) -> bool:
        """Whether there is an array or a part of this name."""
        full = self._prefix + name
        return any(key == full or key.startswith(f"{full}.") for key in self._arrays)

    def tensor(self, name: str) -> torch.Tensor:
        """One array as it is stored."""
        full = self._prefix + name
        if full not in self._arrays:
            raise TwinError(f"the weights have no {full!r}: export the student again with this version")
        self._taken.add(full)
        return self._arrays[full]

    def value(self, name: str, dtype: torch.dtype = torch.float32) -> nn.Parameter:
        """One array as a parameter of its own."""
        return nn.Parameter(self.tensor(name).to(dtype, copy=True).contiguous(), requires_grad=False)

    @property
    def rest(self) -> list[str]:
        """Names that nobody took."""
        return sorted(set(self._arrays) - self._taken)


class Linear(nn.Module):
    """y = x W^T + b in the weights' dtype. W is held as torch multiplies it, [outputs, inputs]."""

    def __init__(self, weights: Weights, dtype: torch.dtype = torch.float32):
        super().__init__()
        kernel = weights.tensor("kernel")
        self.weight = nn.Parameter(kernel.reshape(-1, kernel.shape[-1]).T.to(dtype).contiguous(), requires_grad=False)
        self.bias = weights.value("bias", dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class RmsNorm(nn.Module):
    """x / rms(x) * scale, float32 (arXiv:1910.07467)."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.scale = weights.value("scale")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), self.scale.shape, self.scale, EPSILON)


class Mlp(nn.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, weights: Weights, dtype: torch.dtype):
        super().__init__()
        self.up, self.down = (Linear(weights.within(name), dtype) for name in ("up", "down"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Heads [n, h, t, c] to joined [n, q, h c]; mask bool [n, k] says what may be read, nothing read gives zero."""
    seen = None if mask is None else mask[:, None, None]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)


def heads(x: torch.Tensor, count: int, parts: int = 1) -> tuple[torch.Tensor, ...]:
    """[n, t, parts h c] to `parts` tensors [n, h, t, c]."""
    return x.unflatten(-1, (parts, count, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class Attention(nn.Module):
    """Multi-head self-attention with one product for queries, keys and values."""

    def __init__(self, weights: Weights, count: int, dtype: torch.dtype):
        super().__init__()
        self.qkv, self.out = (Linear(weights.within(name), dtype) for name in ("qkv", "out"))
        self.count = count

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.out(attend(*heads(self.qkv(x), self.count, 3), mask))


class CrossAttention(nn.Module):
    """Multi-head attention to keys and values [n, h, t, c] made elsewhere."""

    def __init__(self, weights: Weights, count: int, dtype: torch.dtype):
        super().__init__()
        self.query, self.out = (Linear(weights.within(name), dtype) for name in ("query", "out"))
        self.count = count

    def forward(self, x: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.out(attend(*heads(self.query(x), self.count), key, value, mask))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, weights: Weights, count: int, dtype: torch.dtype):
        super().__init__()
        self.attention_norm, self.mlp_norm = (RmsNorm(weights.within(f"{name}_norm")) for name in ("attention", "mlp"))
        self.attention = Attention(weights.within("attention"), count, dtype)
        self.mlp = Mlp(weights.within("mlp"), dtype)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class ActionBlock(nn.Module):
    """Cross-attention, self-attention and MLP, each after a norm that is shifted and scaled from outside."""

    def __init__(self, weights: Weights, count: int, dtype: torch.dtype):
        super().__init__()
        self.norms = nn.ModuleList(map(RmsNorm, weights.each("norms")))
        self.cross = CrossAttention(weights.within("cross"), count, dtype)
        self.attention = Attention(weights.within("attention"), count, dtype)
        self.mlp = Mlp(weights.within("mlp"), dtype)

    def forward(
        self, x: torch.Tensor, changes: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """x [b, t, d]; changes [b, 6, d]: shift and scale of each norm."""
        shift, scale = changes[:, 0::2, None], 1.0 + changes[:, 1::2, None]
        x = x + self.cross(self.norms[0](x) * scale[:, 0] + shift[:, 0], key, value, mask)
        x = x + self.attention(self.norms[1](x) * scale[:, 1] + shift[:, 1])
        return x + self.mlp(self.norms[2](x) * scale[:, 2] + shift[:, 2])


class Judge(nn.Module):
    """Tokens [b, f, p, d] (or [b, p, d]) to the energy [b]: predicted e / (e + scale), e the mean over tokens."""

    def __init__(self, parts: Mapping[str, Weights], scale: nn.Parameter, dtype: torch.dtype):
        super().__init__()
        self.norm, self.up, self.out = RmsNorm(parts["norm"]), Linear(parts["up"], dtype), Linear(parts["out"])
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.up(self.norm(x)), approximate="tanh")
        predicted = self.out(hidden).clamp(-20.0, 20.0).flatten(1)
        mean = predicted.logsumexp(1) - torch.log(torch.tensor(float(predicted.shape[1])))
        return torch.sigmoid(mean - self.scale.log())
