"""A teacher as a policy: observations to chunks of actions, alone or closed loop in the simulator."""

from __future__ import annotations

import numpy as np
import torch

from bridge import embodiment as embodiments
from bridge import simulator
from teacher_torch import robot_inputs, taps
from teacher_torch.groot.model import Groot
from teacher_torch.groot.tokenizer import Tokenizer

DECISIONS = 10_000  # more than an episode has: seed * DECISIONS + decision is a noise seed of its own


class Actor:
    """A teacher with its embodiment. The same observation and noise seed give the same chunk, whatever the batch."""

    def __init__(self, model: Groot, body: embodiments.Embodiment, tokenizer: Tokenizer, *, steps: int = 4) -> None:
        """steps: integration steps."""
        self.model, self.body, self.steps = model, body, steps
        self.preparer = robot_inputs.Preparer(model.config, body, tokenizer)
        self.width = sum(body.widths("action").values())

    @torch.inference_mode()
    def chunks(
        self, frames: np.ndarray, state: np.ndarray, instruction: tuple[str, ...], noise: torch.Tensor
    ) -> np.ndarray:
        """Normalised actions float32 [b, h, a] from frames uint8 [b, v, h, w, 3], normalised state [b, 1, d] and noise
        [b, h, action_dim]. Prompts of one length go through the head together."""
        given = self.preparer.prepare(frames, state, instruction)
        out = np.zeros((len(frames), noise.shape[1], self.width), np.float32)
        for at in robot_inputs.by_length(self.preparer, instruction):
            part = robot_inputs.rows(given, at, views=frames.shape[1]).to(self.model.connector.weight.device)
            features = self.model.features(part.input_ids, part.attention_mask, part.pixel_values)
            drawn = noise[torch.from_numpy(at)].to(part.state.device)
            actions = self.model.actions(features, part.state, part.embodiment_id, drawn, self.steps)
            out[at] = actions[..., : self.width].float().cpu().numpy()
        return out

    def __call__(self, query: simulator.Query) -> np.ndarray:
        """As a simulator policy: actions [b, h, 4] in physical units."""
        state = embodiments.normalise_rows(self.body, query.state)[:, None]
        frames = query.frames[:, simulator.cameras(self.body)]
        noise = taps.draw_noise(self.model, noise_seeds(query))[:, 0]
        return embodiments.denormalise_rows(self.body, self.chunks(frames, state, query.instruction, noise))


def noise_seeds(query: simulator.Query) -> list[int]:
    """One seed per row: of the episode and of how often it has asked."""
    return (query.seed * DECISIONS + query.decision).tolist()
