"""GR00T's training objective: the velocity of a straight path from noise to the demonstrated actions."""

import torch

from teacher_torch.groot.config import HeadConfig
from teacher_torch.groot.head import Context
from teacher_torch.groot.model import Groot

ALPHA, BETA, SHIFT = 1.5, 1.0, 0.999  # of the official beta schedule: late (noisy) times are drawn more often


def times(count: int, generator: torch.Generator) -> torch.Tensor:
    """t = (0.999 - Beta(1.5, 1)) / 0.999 [count]: 0 is noise; it can be -0.001, as officially.

    Beta(a, 1) is the 1/a-th power of a uniform number.
    """
    return (SHIFT - torch.rand(count, generator=generator) ** (1 / ALPHA)) / SHIFT


def loss(
    model: Groot, context: Context, actions: torch.Tensor, *, draws: int, generator: torch.Generator
) -> torch.Tensor:
    """Mean squared error of the velocity over valid dimensions, at `draws` pairs of noise and time per sample.

    actions: [b, h, a] normalised, a at most the model's action_dim; what is beyond a is noise of which nothing is
    asked. The context is computed once per sample.
    """
    head: HeadConfig = model.config.head
    valid = actions.shape[-1]
    target = torch.zeros(*actions.shape[:2], head.action_dim)
    target[..., :valid] = actions
    target = target.repeat_interleave(draws, 0)
    noise = torch.randn(target.shape, generator=generator)
    time = times(len(target), generator)
    mixed = (1 - time)[:, None, None] * noise + time[:, None, None] * target
    bucket = (time * head.buckets).long()
    device = context.features.device
    repeated = context.repeated(draws)
    velocity = model.head.velocity(repeated, mixed.to(device, model.dtype), bucket.to(device))
    miss = velocity.float() - (target - noise).to(device)
    return miss[..., :valid].square().mean()
