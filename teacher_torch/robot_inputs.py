"""Model inputs of robot observations in batches: augmented for training, or exactly as `inputs.prepare` makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from bridge.embodiment import Embodiment
from teacher_torch import augment
from teacher_torch.groot import inputs
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.inputs import ModelInputs
from teacher_torch.groot.tokenizer import Tokenizer


class RobotInputError(ValueError):
    """An embodiment that the fast path for robots cannot serve; the message says what to change."""


class Preparer:
    """One tile per view (the embodiment resizes to the teacher's tile, as every shipped robot configuration does)."""

    def __init__(self, config: GrootConfig, body: Embodiment, tokenizer: Tokenizer) -> None:
        if body.transform.resize != config.tile:
            raise RobotInputError(
                f"embodiment {body.tag} resizes views to {body.transform.resize} pixels, the teacher's tile is "
                f"{config.tile}: write its metadata again, python -m bridge.embodiment DATASET --resize {config.tile}"
            )
        for group, room in (("state", config.head.state_dim), ("action", config.head.action_dim)):
            if (width := sum(body.widths(group).values())) > room:
                raise RobotInputError(f"embodiment {body.tag} has {width} {group} values, more than the head's {room}")
        self.config, self.body, self.tokenizer = config, body, tokenizer
        self._ids: dict[str, list[int]] = {}

    def ids(self, instruction: str) -> list[int]:
        """Prompt ids of an instruction."""
        if instruction not in self._ids:
            transform = self.body.transform
            shown = str([instruction]) if transform.instruction_style == "bracketed" else instruction
            text = inputs.prompt(shown, [1] * len(transform.video_keys), self.config.tokens_per_tile)
            self._ids[instruction] = self.tokenizer.encode(text)
        return self._ids[instruction]

    def prepare(self, frames: np.ndarray, state: np.ndarray, instruction: Sequence[str]) -> ModelInputs:
        """As at inference: frames uint8 [b, v, h, w, 3], state float32 [b, 1, d] normalised; left-padded prompts."""
        transform = self.body.transform
        seen = [inputs.crop_and_resize(image, transform.crop, transform.resize) for view in frames for image in view]
        pixels = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).float()
        return self._inputs((pixels - 127.5) / 127.5, state, instruction)

    def augmented(
        self,
        frames: np.ndarray,
        state: np.ndarray,
        instruction: Sequence[str],
        *,
        strength: augment.Jitter,
        generator: torch.Generator,
    ) -> ModelInputs:
        """As in training: a random crop instead of the central one, and colour jitter per view."""
        views = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 1, 4, 2, 3).float() / 255
        share, side = self.body.transform.crop, self.body.transform.resize
        if share is not None:
            views = torch.stack([augment.crop(sample, share, generator) for sample in views])
        pixels = augment.jitter(augment.resize(views.flatten(0, 1), side), strength, generator)
        return self._inputs(2 * pixels - 1, state, instruction)

    def _inputs(self, pixels: torch.Tensor, state: np.ndarray, instruction: Sequence[str]) -> ModelInputs:
        ids, mask = inputs.padded([self.ids(text) for text in instruction], self.tokenizer.pad_id)
        room = self.config.head.state_dim
        known = torch.from_numpy(state)
        return ModelInputs(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=pixels,
            state=F.pad(known, (0, room - known.shape[-1])),
            state_mask=(torch.arange(room) < known.shape[-1]).expand(len(known), 1, room),
            embodiment_id=torch.full((len(known),), self.body.transform.projector_id),
        )


def by_length(preparer: Preparer, instruction: Sequence[str]) -> list[np.ndarray]:
    """Positions of prompts of equal length, together: the head has no mask, so only these may share a batch."""
    lengths = np.array([len(preparer.ids(text)) for text in instruction])
    return [np.flatnonzero(lengths == length) for length in np.unique(lengths)]


def rows(given: ModelInputs, at: np.ndarray, *, views: int) -> ModelInputs:
    """The samples at these positions, which have prompts of one length: their padding is cut off."""
    index = torch.from_numpy(at)
    start = int((given.attention_mask[index[0]] == 0).sum())
    pixels = given.pixel_values.unflatten(0, (-1, views))[index].flatten(0, 1)
    parts = {f.name: getattr(given, f.name)[index] for f in dataclasses.fields(given) if f.name != "pixel_values"}
    parts |= {name: parts[name][:, start:] for name in ("input_ids", "attention_mask")}
    return ModelInputs(pixel_values=pixels, **parts)
