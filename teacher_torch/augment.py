"""Image augmentation of the training configs that GR00T ships: a random crop and a colour jitter."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

GREY = (0.2989, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Largest relative change of brightness, contrast and saturation, and largest shift of hue in turns."""

    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.5
    hue: float = 0.08


def crop(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Cut a random window of int(share * side) from images [n, 3, h, w], one place for all of them."""
    height, width = (int(share * side) for side in images.shape[-2:])
    room = torch.tensor([images.shape[-2] - height + 1, images.shape[-1] - width + 1])
    top, left = (torch.rand(2, generator=generator) * room).long().tolist()
    return images[..., top : top + height, left : left + width]


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Antialiased linear resize of images [n, 3, h, w] to [n, 3, side, side]."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def jitter(images: torch.Tensor, strength: Jitter, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast, saturation and hue of images float [n, 3, h, w] in 0..1, drawn per image.

    The formulas are torchvision's ColorJitter; its order of the four is drawn, here it is fixed.
    """

    def factor(spread: float) -> torch.Tensor:
        draw = torch.rand(len(images), generator=generator, dtype=images.dtype)
        return (1 + spread * (2 * draw - 1))[:, None, None, None]

    images = (images * factor(strength.brightness)).clamp(0, 1)
    images = _blend(images, _grey(images).mean((-2, -1), keepdim=True), factor(strength.contrast))
    images = _blend(images, _grey(images), factor(strength.saturation))
    return turn_hue(images, factor(strength.hue)[:, 0] - 1) if strength.hue else images


def turn_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Images [n, 3, h, w] in 0..1 with their hue (HSV) shifted by turns [n, 1, 1]; value and saturation stay."""
    high, low = images.amax(1), images.amin(1)
    spread = high - low
    scale = torch.where(spread > 0, spread, torch.ones_like(spread))
    red, green, blue = images.unbind(1)
    sector = torch.where(
        high == red,
        (green - blue) / scale,
        torch.where(high == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    hue = sector / 6 + turns
    channels = [(hue * 6 + shift) % 6 for shift in (5.0, 3.0, 1.0)]
    return torch.stack([high - spread * torch.minimum(k, 4 - k).clamp(0, 1) for k in channels], 1)


def _blend(images: torch.Tensor, other: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    return (share * images + (1 - share) * other).clamp(0, 1)


def _grey(images: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(GREY, dtype=images.dtype, device=images.device)
    return torch.einsum("nchw,c->nhw", images, weights)[:, None]
