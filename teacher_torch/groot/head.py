"""The flow-matching action head: context adapter, diffusion transformer, per-embodiment encoders and decoder."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

from teacher_torch.groot import attention
from teacher_torch.groot.config import GrootConfig, HeadConfig


class CategoryLinear(nn.Module):
    """One linear map per embodiment: y = x W[e] + b[e]."""

    def __init__(self, embodiments: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.W = nn.Parameter(0.02 * torch.randn(embodiments, inputs, outputs))
        self.b = nn.Parameter(torch.zeros(embodiments, outputs))

    def forward(self, x: torch.Tensor, embodiment_id: torch.Tensor) -> torch.Tensor:
        return torch.bmm(x, self.W[embodiment_id]) + self.b[embodiment_id][:, None]


class CategoryMlp(nn.Module):
    """Two category linears with a ReLU between them."""

    def __init__(self, embodiments: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layer1 = CategoryLinear(embodiments, inputs, hidden)
        self.layer2 = CategoryLinear(embodiments, hidden, outputs)

    def forward(self, x: torch.Tensor, embodiment_id: torch.Tensor) -> torch.Tensor:
        return self.layer2(F.relu(self.layer1(x, embodiment_id)), embodiment_id)


class ActionEncoder(nn.Module):
    """Noisy actions and their timestep to action tokens."""

    def __init__(self, embodiments: int, actions: int, width: int) -> None:
        super().__init__()
        self.W1 = CategoryLinear(embodiments, actions, width)
        self.W2 = CategoryLinear(embodiments, 2 * width, width)
        self.W3 = CategoryLinear(embodiments, width, width)

    def forward(self, actions: torch.Tensor, bucket: torch.Tensor, embodiment_id: torch.Tensor) -> torch.Tensor:
        a = self.W1(actions, embodiment_id)
        half = a.shape[-1] // 2
        exponent = -torch.arange(half, device=a.device, dtype=torch.float32) * (math.log(10_000.0) / half)
        phase = bucket.float()[:, None] * exponent.exp()
        time = torch.cat([phase.sin(), phase.cos()], -1).to(a.dtype)[:, None].expand_as(a)
        return self.W3(F.silu(self.W2(torch.cat([a, time], -1), embodiment_id)), embodiment_id)


class TimestepEmbedder(nn.Module):
    """256 Fourier features (cosine first) through two linears."""

    FEATURES = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(self.FEATURES, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, bucket: torch.Tensor) -> torch.Tensor:
        half = self.FEATURES // 2
        index = torch.arange(half, device=bucket.device, dtype=torch.float32)
        phase = bucket.float()[:, None] * torch.exp(-math.log(10_000) * index / (half - 1))
        features = torch.cat([phase.cos(), phase.sin()], -1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(features)))


class TimestepEncoder(nn.Module):
    """Keeps the official nesting of names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedder(width)


class Dit(nn.Module):
    """Diffusion transformer: even blocks attend to the context, odd blocks to themselves."""

    def __init__(self, config: HeadConfig, context: int) -> None:
        super().__init__()
        width, dit = config.dit.width, config.dit
        self.timestep_encoder = TimestepEncoder(width)
        self.transformer_blocks = nn.ModuleList(
            attention.DitBlock(width, dit.num_attention_heads, context=None if i % 2 else context, dropout=dit.dropout)
            for i in range(dit.num_layers)
        )
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, config.output_dim)

    def keys_values(self, context: torch.Tensor) -> list[attention.KeyValue | None]:
        """Keys and values of the constant context for every cross block, None for the others."""
        return [block.attn1.keys_values(context) if block.cross else None for block in self.transformer_blocks]

    def time(self, bucket: torch.Tensor) -> torch.Tensor:
        """Timestep embedding [b, width] of integer buckets [b]."""
        return self.timestep_encoder.timestep_embedder(bucket)

    def output(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Final modulated norm (shift first, unlike the blocks') and projection."""
        shift, scale = self.proj_out_1(F.silu(time)).chunk(2, dim=-1)
        return self.proj_out_2(self.norm_out(x) * (1 + scale[:, None]) + shift[:, None])


class Adapter(nn.Module):
    """Self-attention over the context; no final norm."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width, adapter = config.adapter.width, config.adapter
        blocks = [
            attention.AdapterBlock(width, adapter.num_attention_heads, adapter.dropout)
            for _ in range(adapter.num_layers)
        ]
        self.transformer_blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.transformer_blocks:
            x = block(x, mask)
        return x


@dataclasses.dataclass(frozen=True)
class Context:
    """What stays constant while a chunk is integrated: adapted features, keys and values, state token, embodiment.

    mask: bool [b, s], the context that the head may see; None is official: it sees padding too.
    """

    features: torch.Tensor
    key_values: list[attention.KeyValue | None]
    state_token: torch.Tensor
    embodiment_id: torch.Tensor
    mask: torch.Tensor | None = None

    def repeated(self, times: int) -> "Context":
        """Every sample `times` times in a row, for as many noise draws."""

        def repeat(x: torch.Tensor | None) -> torch.Tensor | None:
            return None if x is None else x.repeat_interleave(times, 0)

        key_values = [None if pair is None else (repeat(pair[0]), repeat(pair[1])) for pair in self.key_values]
        return Context(
            repeat(self.features), key_values, repeat(self.state_token), repeat(self.embodiment_id), repeat(self.mask)
        )


class ActionHead(nn.Module):
    """Features, state and noise to a chunk of actions. Attribute names are the official ones."""

    def __init__(self, config: GrootConfig) -> None:
        super().__init__()
        head, width = config.head, config.head.input_embedding_dim
        self.config = head
        self.vlln = nn.LayerNorm(config.width, eps=1e-5)
        self.vl_self_attention = Adapter(head)
        self.model = Dit(head, config.width)
        self.state_encoder = CategoryMlp(head.embodiments, head.state_dim, head.hidden_size, width)
        self.action_encoder = ActionEncoder(head.embodiments, head.action_dim, width)
        self.action_decoder = CategoryMlp(head.embodiments, head.output_dim, head.hidden_size, head.action_dim)
        self.future_tokens = nn.Embedding(head.future_tokens, width)
        self.position_embedding = nn.Embedding(head.max_positions, width)
        for table in (self.future_tokens, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)

    def adapt(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Backbone features [b, s, d] to the fused context `adapted_features` [b, s, d]; mask as in Context."""
        return self.vl_self_attention(self.vlln(features), mask)

    def context(
        self,
        adapted: torch.Tensor,
        state: torch.Tensor,
        embodiment_id: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> Context:
        """Everything that does not change between integration steps."""
        token = self.state_encoder(state, embodiment_id)
        return Context(adapted, self.model.keys_values(adapted), token, embodiment_id, mask)

    def tokens(self, context: Context, actions: torch.Tensor, bucket: torch.Tensor) -> torch.Tensor:
        """The DiT's input: state, future and action tokens [b, 1 + future + horizon, width]."""
        a = self.action_encoder(actions, bucket, context.embodiment_id)
        a = a + self.position_embedding.weight[: a.shape[1]]
        future = self.future_tokens.weight.expand(len(a), -1, -1)
        return torch.cat([context.state_token, future, a], dim=1)

    def velocity(
        self, context: Context, actions: torch.Tensor, bucket: torch.Tensor, rows: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Flow velocity [b, h, a] at noisy actions [b, h, a] and integer time buckets [b] (0..999).

        rows: where given, each cross block appends its action queries' attention, mean over heads and queries: [b, s].
        """
        time = self.model.time(bucket)
        x = self.tokens(context, actions, bucket)
        horizon = actions.shape[1]
        for block, key_value in zip(self.model.transformer_blocks, context.key_values, strict=True):
            if rows is not None and key_value is not None:
                queries = block.norm1(x, time)[:, -horizon:]
                rows.append(block.attn1.rows(queries, key_value[0]).mean((1, 2)))
            x = block(x, time, key_value, context.mask)
        return self.action_decoder(self.model.output(x, time), context.embodiment_id)[:, -horizon:]
