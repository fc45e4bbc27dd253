"""Observations to model inputs: crop, resize, tiles, prompt and padded state, exactly as the official chain."""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from bridge.embodiment import Embodiment
from bridge.observation import Observation
from teacher_torch.groot.tokenizer import IMAGE, Tokenizer

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ENOUGH_AREA = 0.6  # a grid whose pixels cover this share of the image's is large enough


class InputError(ValueError):
    """An image or observation that does not fit the model; the message says what came and the fix."""


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """What a model takes for a batch.

    input_ids, attention_mask: int64 [b, s], left-padded; pixel_values: float32 [tiles, 3, tile, tile] in sample order;
    state: float32 [b, 1, state_dim]; state_mask: bool of that shape, which no model uses; embodiment_id: int64 [b].
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor
    state: torch.Tensor
    state_mask: torch.Tensor
    embodiment_id: torch.Tensor

    def to(self, device: torch.device | str) -> "ModelInputs":
        """The same on another device."""
        return ModelInputs(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})


def tile_grid(height: int, width: int, *, tile: int = 224, max_tiles: int = 12) -> tuple[int, int]:
    """Columns and rows into which an image is cut: the grid that best keeps its shape and area.

    Ties go to the first candidate; among equal numbers of tiles that order is the official code's set order.
    """
    grids = {(c, r) for n in range(1, max_tiles + 1) for c in range(1, n + 1) for r in range(1, n + 1)}
    aspect = width / height
    best, best_score = (1, 1), float("-inf")
    for columns, rows in sorted((g for g in grids if g[0] * g[1] <= max_tiles), key=lambda g: g[0] * g[1]):
        area = min((columns * rows * tile * tile) / (width * height), ENOUGH_AREA)
        score = area * min((columns / rows) / aspect, aspect / (columns / rows))
        if score > best_score:
            best, best_score = (columns, rows), score
    return best


def pixel_values(image: np.ndarray | torch.Tensor, *, tile: int = 224, max_tiles: int = 12) -> torch.Tensor:
    """Tiles of one image: float32 [tiles, 3, tile, tile] in -1..1, row-major, thumbnail last where there are several.

    image: uint8 [h, w, 3], RGB. Bicubic with antialiasing on the uint8 image itself; the aspect ratio is not kept.
    """
    if image.ndim != 3 or image.shape[-1] != 3 or str(image.dtype).removeprefix("torch.") != "uint8":
        raise InputError(
            f"an image must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}: for floats in 0..1 use "
            "(image * 255).astype(np.uint8), and move channels last"
        )
    if 0 in image.shape or max_tiles < 1:
        raise InputError(f"expected an image with pixels and max_tiles >= 1, got {list(image.shape)} and {max_tiles}")
    chw = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None]
    columns, rows = tile_grid(*image.shape[:2], tile=tile, max_tiles=max_tiles)
    whole = _bicubic(chw, rows * tile, columns * tile)
    tiles = whole.reshape(3, rows, tile, columns, tile).permute(1, 3, 0, 2, 4).flatten(0, 1)  # [n, 3, tile, tile]
    if len(tiles) > 1:
        tiles = torch.cat([tiles, _bicubic(chw, tile, tile)])
    return (tiles.float() - 127.5) / 127.5


def _bicubic(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if image.shape[-2:] == (height, width):
        return image.contiguous()
    return F.interpolate(image, size=(height, width), mode="bicubic", antialias=True, align_corners=False)


def crop_and_resize(image: np.ndarray, crop: float | None, resize: int | None) -> np.ndarray:
    """Centre crop to int(crop * side), then antialiased linear resize; uint8 [h, w, 3] to uint8, truncating."""
    if crop is None and resize is None:
        return image
    x = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
    if crop is not None:
        height, width = (int(crop * side) for side in image.shape[:2])
        top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
        x = x[..., top : top + height, left : left + width]
    if resize is not None:
        x = F.interpolate(x, size=(resize, resize), mode="bilinear", antialias=True, align_corners=False)
    return (x * 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()


def prompt(instruction: str, tiles: list[int], tokens_per_tile: int = 256) -> str:
    """The chat text of one sample: every image's tokens, then the instruction. tiles: tiles of each image."""
    images = "".join(f"<image {i}><img>{IMAGE * (n * tokens_per_tile)}</img>" for i, n in enumerate(tiles, start=1))
    return f"{SYSTEM}<|im_start|>user\n{images}{instruction}<|im_end|>\n<|im_start|>assistant\n"


def prepare(
    observation: Observation,
    embodiment: Embodiment,
    tokenizer: Tokenizer,
    *,
    tile: int = 224,
    tokens_per_tile: int = 256,
    state_dim: int = 64,
) -> ModelInputs:
    """Model inputs of a batch; tile, tokens_per_tile and state_dim are the model's (config.tile, ...)."""
    _check(observation, embodiment, state_dim)
    transform = embodiment.transform
    pixels, ids = [], []
    for video, text in zip(observation.video, observation.instruction, strict=True):
        images = [crop_and_resize(image, transform.crop, transform.resize) for frame in video for image in frame]
        tiles = [pixel_values(image, tile=tile, max_tiles=transform.max_tiles) for image in images]
        shown = str([text]) if transform.instruction_style == "bracketed" else text
        ids.append(tokenizer.encode(prompt(shown, [len(t) for t in tiles], tokens_per_tile)))
        pixels += tiles
    input_ids, attention_mask = padded(ids, tokenizer.pad_id)
    state = torch.tensor(observation.state)
    width = state.shape[-1]
    return ModelInputs(
        input_ids=input_ids,
        attention_mask=attention_mask,
        pixel_values=torch.cat(pixels),
        state=F.pad(state, (0, state_dim - width)),
        state_mask=(torch.arange(state_dim) < width).expand(len(state), 1, state_dim),
        embodiment_id=torch.full((len(state),), transform.projector_id),
    )


def _check(observation: Observation, embodiment: Embodiment, state_dim: int) -> None:
    if observation.embodiment != embodiment.tag:
        raise InputError(
            f"the observation is of embodiment {observation.embodiment!r}, the transform given is of "
            f"{embodiment.tag!r}: load the matching one with bridge.embodiment.load"
        )
    views = embodiment.transform.video_keys
    if observation.video.shape[2] != len(views):
        raise InputError(
            f"{embodiment.tag} shows {len(views)} views {views}, the video has {observation.video.shape[2]}"
        )
    width = sum(embodiment.widths("state").values())
    if observation.state.shape[-1] != width or width > state_dim:
        raise InputError(
            f"{embodiment.tag} has {width} state values and the model room for {state_dim}, "
            f"the observation has {observation.state.shape[-1]}: build the state with bridge.embodiment.normalise"
        )


def padded(ids: list[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded ids and mask, int64 [b, s]."""
    length = max(map(len, ids))
    padded = [[pad_id] * (length - len(row)) + row for row in ids]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in ids]
    return torch.tensor(padded), torch.tensor(mask)
