"""GR00T N1.5: images and a prompt to backbone features, features and state to actions."""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from teacher_torch.groot import backbone, head
from teacher_torch.groot.config import GrootConfig


class MismatchError(ValueError):
    """Inputs that do not belong to this model; the message says what it takes."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """One integration. actions [b, h, a]; path [b, steps + 1, h, a] from noise to actions; velocity [b, steps, h, a];

    attention [b, s]: what the action queries look at, mean over steps, cross blocks, heads and queries (or None).
    """

    actions: torch.Tensor
    path: torch.Tensor
    velocity: torch.Tensor
    attention: torch.Tensor | None


class Groot(nn.Module):
    """The model, randomly initialised from a configuration; `checkpoint.load` fills it with weights.

    with_head=False leaves out the action head: features only.
    """

    def __init__(self, config: GrootConfig, *, with_head: bool = True) -> None:
        super().__init__()
        self.config = config
        self.tower = backbone.siglip(config.vision)
        self.connector = nn.Linear(config.vision.hidden_size, config.width)
        self.language = backbone.qwen(config.language)
        self.head = head.ActionHead(config) if with_head else None

    def _apply(self, fn, recurse=True):
        """Casting must not round the rotary frequencies."""
        super()._apply(fn, recurse)
        backbone.restore_buffers(self.tower, self.language)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, to which every floating input is cast."""
        return self.connector.weight.dtype

    def vision(
        self, pixel_values: torch.Tensor, *, attention: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tiles [n, 3, tile, tile] to image tokens [n, tokens, d] after the connector.

        attention=True also gives the last layer's attention, mean over heads and queries: float32 [n, tokens].
        """
        last = self.tower.encoder.layers[-1]
        with backbone.outputs_of(*[last.layer_norm1] if attention else []) as seen:
            hidden = self.tower(pixel_values.to(self.dtype)).last_hidden_state
        return self.connector(hidden), backbone.mean_attention(last.self_attn, seen[0]) if attention else None

    def embed(self, input_ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """Prompt embeddings [b, s, d] with the image tokens put in reading order where the prompt marks them."""
        if int(input_ids.max()) >= self.config.language.vocab_size:
            raise MismatchError(
                f"token id {int(input_ids.max())} is outside this model's vocabulary of "
                f"{self.config.language.vocab_size}: use the tokenizer of its own folder (tokenizer.load)"
            )
        marked = input_ids == self.config.image_token_id
        tokens = image_tokens.flatten(0, 1)
        if int(marked.sum()) != len(tokens):
            raise MismatchError(
                f"the prompt has {int(marked.sum())} image tokens ({self.config.image_token_id}) but the tiles give "
                f"{len(tokens)}: build both with inputs.prepare, with this model's tile and tokens_per_tile"
            )
        embeddings = self.language.embed_tokens(input_ids)
        return embeddings.masked_scatter(marked[..., None], tokens.to(embeddings.dtype))

    def read(
        self,
        embeddings: torch.Tensor,
        attention_mask: torch.Tensor,
        *,
        language: Callable[..., BaseModelOutputWithPast] | None = None,
    ) -> torch.Tensor:
        """Embeddings [b, s, d] to backbone features [b, s, d]: causal, positions 0..s-1, final norm included.

        language: the model's own, where it was compiled.
        """
        padded = not bool(attention_mask.all())
        language = self.language if language is None else language  # a compiled module has no truth value
        return language(
            inputs_embeds=embeddings, attention_mask=attention_mask if padded else None, use_cache=False
        ).last_hidden_state

    def features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor
    ) -> torch.Tensor:
        """Backbone features [b, s, d], before the head's norm and adapter.

        input_ids, attention_mask: int64 [b, s]; pixel_values: float [tiles, 3, tile, tile], samples in order.
        Values at padded positions (mask 0) mean nothing.
        """
        return self.read(self.embed(input_ids, self.vision(pixel_values)[0]), attention_mask)

    def adapted(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The fused context [b, s, d]: features after the head's norm and self-attention; mask as in head.Context."""
        return self._head().adapt(features.to(self.dtype), mask)

    def actions(
        self,
        features: torch.Tensor,
        state: torch.Tensor,
        embodiment_id: torch.Tensor,
        noise: torch.Tensor,
        steps: int = 4,
    ) -> torch.Tensor:
        """Actions [b, horizon, action_dim] in normalised units, integrated from noise of that shape.

        features [b, s, d] as `features` gives them; state [b, 1, state_dim]; embodiment_id int64 [b].
        The head has no mask: batch only samples of equal length.
        """
        context = self.context(self.adapted(features), state, embodiment_id)
        return self.integrate(context, noise, steps=steps).actions

    def context(
        self,
        adapted: torch.Tensor,
        state: torch.Tensor,
        embodiment_id: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> head.Context:
        """What `integrate` needs, computed once per chunk: keys and values of the context among it.

        mask: bool [b, s] hides padding from the head, so that a sample of a ragged batch gets what it would get alone;
        the official code has no such mask, and None follows it.
        """
        rows = self.config.head.embodiments
        if not bool(((embodiment_id >= 0) & (embodiment_id < rows)).all()):
            raise MismatchError(f"embodiment ids (projector_id) must be in 0..{rows - 1}, got {embodiment_id.tolist()}")
        return self._head().context(adapted, state.to(self.dtype), embodiment_id, mask)

    def integrate(
        self,
        context: head.Context,
        noise: torch.Tensor,
        *,
        steps: int = 4,
        attention: bool = False,
        velocity: Callable[..., torch.Tensor] | None = None,
    ) -> Chunk:
        """Euler integration of the flow from noise [b, h, a] (time 0) to actions (time 1).

        velocity: the head's own, where it was compiled.
        """
        config, velocity = self.config.head, self._head().velocity if velocity is None else velocity
        if noise.shape[1:] != (config.horizon, config.action_dim) or len(noise) != len(context.features):
            want = [len(context.features), config.horizon, config.action_dim]
            raise MismatchError(f"noise must be {want}, got {list(noise.shape)}")
        path, velocities = [noise.to(self.dtype)], []
        rows: list[torch.Tensor] | None = [] if attention else None
        for k in range(steps):
            bucket = torch.full((len(noise),), int(k / steps * config.buckets), device=noise.device)
            velocities.append(velocity(context, path[-1], bucket, rows).clone())
            path.append(path[-1] + (1 / steps) * velocities[-1])
        mean = torch.stack(rows).mean(0) if rows else None
        return Chunk(path[-1], torch.stack(path, 1), torch.stack(velocities, 1), mean)

    def _head(self) -> head.ActionHead:
        if self.head is None:
            raise RuntimeError("this model was loaded with features_only=True: load it without to get actions")
        return self.head
