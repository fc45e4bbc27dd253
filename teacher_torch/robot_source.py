"""Robot records as a teacher's inputs, and its outputs as features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from teacher_torch import robot_plan, taps
from teacher_torch.groot.model import Groot
from teacher_torch.groups import Batch
from teacher_torch.robot_inputs import Preparer
from teacher_torch.robot_plan import Shapes, Words
from teacher_torch.robot_records import Observations


class Source:
    """A robot dataset's records, as groups.Source has them."""

    def __init__(
        self, seen: Observations, preparer: Preparer, words: Words, *, shapes: Shapes, texts: list[str], seed: int
    ) -> None:
        """texts: the instructions in the order of instruction_id; seed: of the noise."""
        self.seen, self.preparer, self.words, self.shapes, self.seed = seen, preparer, words, shapes, seed
        self._ids = {text: number for number, text in enumerate(texts)}

    def prepare(self, records: Sequence[int]) -> Batch:
        """Inputs of records with prompts of one length; labels are kept beside them, and never become inputs."""
        numbers, frames = self.seen.numbers(records), self.seen.frames(records)
        texts = [self.seen.records.instruction[i] for i in records]
        known = {name: values[:, None] for name, values in numbers.items()}
        known["instruction_id"] = np.array([[self._ids[text]] for text in texts], np.int32)
        if self.shapes.picture is not None:
            known["frames"] = np.stack([np.stack(views) for views in frames])
        return Batch(list(records), self.preparer.prepare(frames, numbers["state"][:, None], texts), known)

    def take(self, model: Groot, batch: Batch, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The named features: taps of the same name, or parts of a tap."""
        given, wanted = batch.inputs.to(next(model.parameters()).device), robot_plan.tapped(names)
        noise = self.noise(model, batch.records) if set(wanted) & set(taps.ACTION) else None
        options = {"noise": noise, "steps": self.shapes.steps, "action_dim": self.shapes.action}
        taken = taps.collect(model, given, wanted, **options)
        image = given.input_ids == model.config.image_token_id
        return {name: self._part(name, taken, image=image, batch=batch) for name in names}

    def noise(self, model: Groot, records: Sequence[int]) -> torch.Tensor:
        """Noise [n, k, h, action_dim], the padded action values included."""
        chosen = self.seen.records
        places = zip(chosen.episode[list(records)].tolist(), chosen.row[list(records)].tolist(), strict=True)
        seeds = [robot_plan.noise_seed(episode, row, self.seed) for episode, row in places]
        return taps.draw_noise(model, seeds, self.shapes.draws)

    def _part(self, name: str, taken: dict[str, torch.Tensor], *, image: torch.Tensor, batch: Batch) -> torch.Tensor:
        value = taken[robot_plan.SOURCES.get(name, name)]
        if name in ("saliency", "fused_tokens", "image_features"):
            return value[image].unflatten(0, (len(image), -1))
        if name == "text_features":
            first = self.seen.records.instruction[batch.records[0]]  # prompts of one length differ in the text alone
            return value[:, self.words.span(first)].float().mean(1)
        if name == "noise":
            value = value[:, :, 0]
        return value[..., : self.shapes.action] if name in ("noise", "actions", "path", "velocity") else value
