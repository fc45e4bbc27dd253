"""A GR00T with weights drawn in memory: for its speed and memory, which do not depend on what the weights are."""

import math
from collections.abc import Sequence

import torch

from teacher_torch.groot import backbone
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.model import Groot

NAME = "full-size"
POOL = 2**22 + 1
"""Normal values that are drawn; each tensor repeats them from a place of its own. To draw 2.7 billion takes minutes."""


def build(
    config: GrootConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu", with_head: bool = True
) -> Groot:
    """A model in eval mode whose activations neither vanish nor grow, in the sizes of a configuration."""
    with torch.device("meta"):
        model = Groot(config, with_head=with_head)
    generator = torch.Generator().manual_seed(0)
    pool = torch.empty(POOL).normal_(generator=generator)
    state = {}
    for name, value in model.state_dict().items():
        start = int(torch.randint(POOL, (), generator=generator))
        state[name] = _drawn(name, value.shape, pool, start, dtype).to(device)
    model.load_state_dict(state, assign=True)
    backbone.restore_buffers(model.tower, model.language)
    return model.eval()


def _drawn(name: str, shape: Sequence[int], pool: torch.Tensor, start: int, dtype: torch.dtype) -> torch.Tensor:
    """One parameter, sized by its kind as the golden weights are."""
    scale, shift = _size(name, shape)
    values = (pool * scale + shift).to(dtype)
    drawn = torch.empty(math.prod(shape), dtype=dtype)
    first = min(POOL - start, drawn.numel())
    drawn[:first] = values[start : start + first]
    for at in range(first, drawn.numel(), POOL):
        part = drawn[at : at + POOL]
        part.copy_(values[: len(part)])
    return drawn.view(*shape)


def _size(name: str, shape: Sequence[int]) -> tuple[float, float]:
    """(scale, shift) of normal values for a parameter of this name and shape."""
    owner, kind = name.split(".")[-2:]
    if kind == "W":  # [embodiment, in, out]
        return shape[1] ** -0.5, 0.0
    if kind == "b" or "bias" in kind:
        return 0.05, 0.0
    if len(shape) == 1:  # the scale of a norm
        return 0.1, 1.0
    if owner in ("embed_tokens", "position_embedding", "future_tokens"):
        return 0.5, 0.0
    return math.prod(shape[1:]) ** -0.5, 0.0
