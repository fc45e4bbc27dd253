"""The twin's eye: frames to patches, the Vision IRP's stem and steps, and the heads that read the teacher's tokens."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from teacher_torch import twin_layers as layers
from teacher_torch.twin_layers import Weights

LIMIT = 256.0


class Vision(nn.Module):
    """Frames uint8 [b, t, v, h, w, 3] to tokens [b, f, p, d], refined by all steps."""

    def __init__(self, weights: Weights, config: Mapping, target: Mapping, dtype: torch.dtype):
        super().__init__()
        self.canvas, self.patch, self.steps = config["canvas"], config["patch"], config["max_steps"]
        self.embed = layers.Linear(weights.within("embed"), dtype)
        self.position = weights.value("position")
        self.stem = nn.ModuleList(layers.Block(each, config["heads"], dtype) for each in weights.each("stem"))
        self.again = layers.Linear(weights.within("again"), dtype)
        self.step_embedding, self.gate = weights.value("step_embedding"), weights.value("gate")
        self.blocks = nn.ModuleList(layers.Block(each, config["heads"], dtype) for each in weights.each("blocks"))
        parts = {name: weights.within(f"error_{name}") for name in ("norm", "up", "out")}
        self.judge = layers.Judge(parts, weights.value("error_scale"), dtype)
        grid = config["canvas"] // config["patch"]
        self.readout = Readout(weights.within("readout"), grid, target, dtype) if weights.has("readout") else None
        self.objects = Objects(weights.within("object_head"), grid) if weights.has("object_head") else None

    def start(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """First tokens [b, f, p, d], and what every step sees again of the patches."""
        frames = video.flatten(1, 2)
        x = self.embed(patches(frames.flatten(0, 1), self.canvas, self.patch)).float() + self.position
        again = self.again(x).float()
        for block in self.stem:
            x = block(x)
        shape = (*frames.shape[:2], *x.shape[1:])
        return x.view(shape).clamp(-LIMIT, LIMIT), again.view(shape)

    def step(self, x: torch.Tensor, again: torch.Tensor, k: int) -> torch.Tensor:
        """Refinement number k."""
        before = (x + again + self.step_embedding[k]).flatten(0, 1)
        after = before
        for block in self.blocks:
            after = block(after)
        return (x + self.gate[k] * (after - before).view(x.shape)).clamp(-LIMIT, LIMIT)

    def output(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The teacher's image tokens and vision attention; with a head for them, objects."""
        if self.readout is None:
            return {}
        seen = self.readout.centres(x)
        found = {"image_tokens": self.readout.token(seen).float(), "vision_attention": self.readout.attended(seen)}
        return found | ({"objects": self.objects(x)} if self.objects else {})


def patches(frames: torch.Tensor, canvas: int, patch: int) -> torch.Tensor:
    """uint8 [n, h, w, 3] to [n, (canvas / patch)^2, patch * patch * 3] in [-1, 1]: box mean, then a triangle filter."""
    x = frames.permute(0, 3, 1, 2).float()
    if box := [_box(side, canvas) for side in x.shape[2:]]:
        x = F.avg_pool2d(x, box) if max(box) > 1 else x
    if tuple(x.shape[2:]) != (canvas, canvas):
        x = F.interpolate(x, (canvas, canvas), mode="bilinear", antialias=True, align_corners=False)
    x = ((x - 127.5) / 127.5).unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [n, 3, gy, py, gx, px]
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def _box(side: int, canvas: int) -> int:
    """The largest power of two that divides `side` and leaves at least `canvas` pixels; 1 if there is none."""
    return max(1 << k for k in range(side.bit_length()) if side % (1 << k) == 0 and (k == 0 or side >> k >= canvas))


class Readout(nn.Module):
    """From the student's token map to the teacher's tokens, at their centres where the two grids differ."""

    def __init__(self, weights: Weights, source: int, target: Mapping, dtype: torch.dtype):
        super().__init__()
        self.norm = layers.RmsNorm(weights.within("norm"))
        self.token = layers.Linear(weights.within("token"), dtype)
        self.attention = layers.Linear(weights.within("attention")) if weights.has("attention") else None
        self.source, self.target = source, target
        self.tiles = target["columns"] * target["rows"] + target["thumbnail"]
        self.identity = not weights.has("mix")
        if not self.identity:
            self.position = weights.value("position")
            self.place = layers.Linear(weights.within("place"))
            self.mix_norm = layers.RmsNorm(weights.within("mix_norm"))
            self.mix = layers.Mlp(weights.within("mix"), dtype)
            self.register_buffer("places", _places(target, source), persistent=False)

    def centres(self, x: torch.Tensor) -> torch.Tensor:
        """[b, f, p, d] to normed tokens [b, f, k, d]."""
        if self.identity:
            return self.norm(x)
        shape, x = x.shape[:2], self._sample(x.flatten(0, 1))
        x = x + self.position.repeat(self.tiles, 1) + self.place(self.places)
        return self.norm(x + self.mix(self.mix_norm(x))).unflatten(0, shape)

    def attended(self, seen: torch.Tensor) -> torch.Tensor:
        """Attention [b, f, k], summing to 1 per tile."""
        return self.attention(seen).squeeze(-1).unflatten(-1, (self.tiles, -1)).softmax(-1).flatten(2)

    def _sample(self, x: torch.Tensor) -> torch.Tensor:
        grid, target = self.target["grid"], self.target
        field = x.unflatten(1, (self.source, self.source)).permute(0, 3, 1, 2)
        found = [_tiled(field, target["rows"], target["columns"], grid)]
        return torch.cat(found + [_tiled(field, 1, 1, grid)] * target["thumbnail"], dim=1)


def _tiled(field: torch.Tensor, rows: int, columns: int, grid: int) -> torch.Tensor:
    """A map [n, d, y, x] read bilinearly at the tokens' centres: [n, k, d], tiles row-major, tokens in a tile too."""
    size = (rows * grid, columns * grid)
    y = _linear(size[0], field.shape[2], field.device) @ field @ _linear(size[1], field.shape[3], field.device).T
    return y.unflatten(3, (columns, grid)).unflatten(2, (rows, grid)).permute(0, 2, 4, 3, 5, 1).flatten(1, 4)


def _linear(points: int, source: int, device: torch.device) -> torch.Tensor:
    """Interpolation [points, source] between cell centres; constant beyond the outermost ones."""
    at = ((torch.arange(points, device=device) + 0.5) * source / points - 0.5).clamp(0, source - 1)
    return (1 - (at[:, None] - torch.arange(source, device=device)).abs()).clamp(min=0)


def _places(target: Mapping, source: int) -> torch.Tensor:
    """Per teacher token [tokens, 5]: sines, then cosines, of its phase (y, x) in the student's cell; 1 if thumbnail."""
    grid = target["grid"]

    def phases(rows: int, columns: int, last: float) -> np.ndarray:
        y, x = ((np.arange(n * grid) + 0.5) * source / (n * grid) for n in (rows, columns))
        angle = 2 * np.pi * np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
        angle = angle.reshape(rows, grid, columns, grid, 2).swapaxes(1, 2).reshape(-1, 2)
        return np.concatenate([np.sin(angle), np.cos(angle), np.full((len(angle), 1), last)], axis=-1)

    parts = [phases(target["rows"], target["columns"], 0.0)] + [phases(1, 1, 1.0)] * target["thumbnail"]
    return torch.tensor(np.concatenate(parts), dtype=torch.float32)


class Objects(nn.Module):
    """Tokens [b, f, p, d] to [b, f, n, 3]: row and column in [0, 1] and a logit of being visible."""

    def __init__(self, weights: Weights, grid: int):
        super().__init__()
        self.norm, self.head = layers.RmsNorm(weights.within("norm")), layers.Linear(weights.within("head"))
        self.grid = grid
        at = (torch.arange(grid) + 0.5) / grid
        self.register_buffer("centre", torch.cartesian_prod(at, at)[:, None], persistent=False)  # [p, 1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.head(self.norm(x)).unflatten(-1, (-1, 4))  # [b, f, p, n, 4]
        weight = y[..., :1].softmax(-3)
        read = (weight * y[..., 1:]).sum(-3)
        place = (weight * self.centre).sum(-3) + 0.5 / self.grid * read[..., :2].tanh()
        return torch.cat([place, read[..., 2:]], dim=-1)
