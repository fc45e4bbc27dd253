"""The H-module: from the first look, the words, the body, trust and budget to where to look, whom to believe, how long
to think."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from student_jax import config, cost, layers, sizes
from student_jax.irps import readout

MAPS = 8
"""Attention maps whose mixture is the saliency."""
USUAL_TRUST = 0.9
"""The trust at which a gate says what the situation alone says."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sight:
    """What the H-module reads."""

    vision: Any  # float32 [b, f, p, d], the Vision IRP's tokens before any refinement
    frame_mask: Any  # bool [b, f]
    text: Any  # float32 [b, l, d], the Language IRP's reading of the text alone
    token_mask: Any  # bool [b, l]
    state: Any  # float32 [b, 1, s], of the robot, normalised
    trust: Any  # float32 [b, m] in [0, 1]
    thrift: Any  # float32 [b] in [1, 10], `budget.thrift`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Brief:
    """What it tells the others."""

    saliency: Any  # float32 [b, f, p], over the student's own tokens; sum 1 over a sample's valid frames
    gates: Any  # float32 [b, m] in (0, 1): how much of a module's tokens reaches those that read them
    log_error: Any  # float32 [b, c], predicted logarithm of the action error for every choice of steps
    context: Any  # float32 [b, d], added to every fused token
    query: Any  # float32 [b, w], the situation as the confidence head reads it


class HModule(nnx.Module):
    """Queries, one per module and one per map of the saliency, attend over image, text and body tokens.

    saliency: a learned mixture of MAPS softmax maps over the image tokens. gates: sigmoid of a query's logit plus its
    sensitivity times (logit of the module's trust - logit of USUAL_TRUST). What a closed gate keeps out is replaced by
    a learned embedding of "nothing known".
    """

    def __init__(
        self,
        settings: sizes.HConfig,
        *,
        seen: config.VisionConfig,
        language: sizes.LanguageConfig,
        control: sizes.ControlConfig,
        state: int,
        steps: dict[str, int],
        rngs: nnx.Rngs,
    ):
        """steps: refinement steps at most of every module, in the order of the trust axis."""
        width, dtype = settings.width, settings.dtype
        self.config, self.steps, self.grid = settings, tuple(steps), seen.grid
        self.seen_norm, self.read_norm = layers.RmsNorm(seen.width), layers.RmsNorm(language.width)
        self.see = layers.Linear(seen.width, width, dtype=dtype, rngs=rngs)
        self.read = layers.Linear(language.width, width, dtype=dtype, rngs=rngs)
        self.frame = nnx.Param(0.3 * _normal(rngs, language.frames, width))
        self.feel = layers.Linear(state + len(steps) + 1, width, dtype=jnp.float32, rngs=rngs)
        self.queries = nnx.Param(0.3 * _normal(rngs, len(steps) + MAPS, width))
        self.blocks = nnx.List([_Reader(settings, rngs=rngs) for _ in range(settings.blocks)])
        self.norm = layers.RmsNorm(width)
        self.look = layers.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = layers.Linear(width, width, dtype=dtype, rngs=rngs)
        self.mix = layers.Linear(width, 1, dtype=jnp.float32, rngs=rngs)
        self.open = layers.Linear(width, 1, dtype=jnp.float32, rngs=rngs, scale=0.0)
        self.open.bias[...] = jnp.full(1, 4.0)
        self.believe = nnx.Param(jnp.ones(len(steps), jnp.float32))
        choices = math.prod(most + 1 for most in steps.values())
        self.foresee = layers.Linear(width, choices, dtype=jnp.float32, rngs=rngs)
        self.tell = layers.Linear(width, language.width, dtype=jnp.float32, rngs=rngs, scale=0.0)
        self.point = nnx.Param(jnp.zeros(language.width, jnp.float32))
        self.nothing_seen = nnx.Param(jnp.zeros(seen.width, jnp.float32))
        self.nothing_read = nnx.Param(jnp.zeros(language.width, jnp.float32))
        self.sure_norm = layers.RmsNorm(control.width)
        self.sure = layers.Linear(width + control.width, 1, dtype=jnp.float32, rngs=rngs, scale=0.0)

    def __call__(self, sight: Sight) -> Brief:
        """Everything at once, before any module refines."""
        b, f, p, _ = sight.vision.shape
        image = self.see(self.seen_norm(sight.vision)) + self.frame[:f][None, :, None]
        image = image.reshape(b, f * p, -1)
        felt = self.feel(jnp.concatenate([sight.state[:, 0], sight.trust, jnp.log(sight.thrift)[:, None]], axis=-1))
        tokens = jnp.concatenate([image, self.read(self.read_norm(sight.text)), felt[:, None]], axis=1)
        visible = jnp.repeat(sight.frame_mask, p, axis=1)
        mask = jnp.concatenate([visible, sight.token_mask, jnp.ones((b, 1), bool)], axis=1)
        queries = jnp.broadcast_to(self.queries[...][None] + felt[:, None], (b, *self.queries.shape))
        for block in self.blocks:
            queries = block(queries, tokens, mask)
        queries = self.norm(queries)
        own = queries[:, : len(self.steps)]
        return Brief(
            saliency=self._saliency(queries[:, len(self.steps) :], image, visible).reshape(b, f, p),
            gates=self._gates(own, sight.trust),
            log_error=self.foresee(own.mean(axis=1)),
            context=self.tell(own.mean(axis=1)),
            query=own.mean(axis=1),
        )

    def _saliency(
        self, queries: Float[Array, "b s d"], image: Float[Array, "b n d"], visible: Bool[Array, "b n"]
    ) -> Float[Array, "b n"]:
        keys = self.key(jax.nn.gelu(image, approximate=True))
        logits = jnp.einsum("bsd,bnd->bsn", self.look(queries), keys) / queries.shape[-1] ** 0.5
        maps = jax.nn.softmax(jnp.where(visible[:, None], logits, -1e30), axis=-1)
        share = jax.nn.softmax(self.mix(queries)[..., 0], axis=-1)
        found = jnp.einsum("bs,bsn->bn", share, maps)
        return jnp.where(visible, found, 0.0)

    def _gates(self, own: Float[Array, "b m d"], trust: Float[Array, "b m"]) -> Float[Array, "b m"]:
        bounded = jnp.clip(trust, 0.01, 0.99)
        surprise = _logit(bounded) - _logit(jnp.float32(USUAL_TRUST))
        return jax.nn.sigmoid(self.open(own)[..., 0] + self.believe[...][None] * surprise)

    def gated_sight(self, tokens: Float[Array, "b f p d"], brief: Brief) -> Float[Array, "b f p d"]:
        """The Vision IRP's tokens as its readers get them."""
        gate = brief.gates[:, self.steps.index("vision"), None, None, None]
        return gate * tokens + (1.0 - gate) * self.nothing_seen[...].reshape(1, 1, 1, -1)

    def gated_fusion(self, context: dict[str, Array], brief: Brief) -> dict[str, Array]:
        """The Language IRP's text and image tokens as the control gets them: gated, pointed at, with the situation.

        context: `tokens` [b, l + f * p, d], text first, and `mask`.
        """
        tokens, length = context["tokens"], context["tokens"].shape[1]
        gate = brief.gates[:, self.steps.index("language"), None, None]
        tokens = gate * tokens + (1.0 - gate) * self.nothing_read[...].reshape(1, 1, -1)
        places = brief.saliency.reshape(brief.saliency.shape[0], -1)
        relative = jnp.log1p(places * places.shape[1])
        relative = jnp.pad(relative, ((0, 0), (length - places.shape[1], 0)))
        tokens = tokens + relative[:, :, None] * self.point[...].reshape(1, 1, -1) + brief.context[:, None]
        return context | {"tokens": tokens}

    def confidence(self, brief: Brief, hidden: Float[Array, "b h d"]) -> Float[Array, " b"]:
        """In [0, 1], taught by the teacher's own (how little its draws differ). hidden: the control's last tokens."""
        known = jnp.concatenate([brief.query, self.sure_norm(hidden.mean(axis=1))], axis=-1)
        return jax.nn.sigmoid(self.sure(known)[:, 0])

    def told(self, brief: Brief, target: config.Target) -> Float[Array, "b f k"]:
        """The saliency over the teacher's tokens, sum 1 over a sample's frames."""
        b, f, p = brief.saliency.shape
        if target.tiles == 1 and target.grid == self.grid:
            return brief.saliency
        read = readout.sample(brief.saliency.reshape(b * f, p, 1), target, self.grid)[..., 0].reshape(b, f, -1)
        return read / jnp.maximum(read.sum(axis=(1, 2), keepdims=True), 1e-12)

    def flops(self, *, image: int, text: int) -> float:
        """Of one call for so many image and text tokens."""
        width, queries = self.config.width, self.queries.shape[0]
        tokens = image + text + 1
        embed = cost.linear(image, self.see.kernel.shape[0], width) + cost.linear(
            text, self.read.kernel.shape[0], width
        )
        reader = cost.linear(tokens, width, 2 * width) + 2 * cost.linear(queries, width, tokens)
        reader += 2 * cost.linear(queries, width, width) + 2 * cost.linear(queries, width, self.config.mlp)
        maps = cost.linear(image, width, width) + cost.linear(MAPS, width, width) + cost.linear(MAPS, width, image)
        return embed + self.config.blocks * reader + maps


class _Reader(nnx.Module):
    """Cross-attention of the queries over everything, then an MLP."""

    def __init__(self, settings: sizes.HConfig, *, rngs: nnx.Rngs):
        width, dtype = settings.width, settings.dtype
        self.norms = nnx.List([layers.RmsNorm(width) for _ in range(3)])
        self.keys_values = layers.Linear(width, 2 * width, dtype=dtype, rngs=rngs)
        self.cross = layers.CrossAttention(width, settings.heads, dtype=dtype, rngs=rngs)
        self.mlp = layers.Mlp(width, settings.mlp, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b q d"], tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]
    ) -> Float[Array, "b q d"]:
        b, n, d = tokens.shape
        heads = self.cross.heads
        split = self.keys_values(self.norms[1](tokens)).reshape(b, n, 2, heads, d // heads).astype(self.cross.dtype)
        x = x + self.cross(self.norms[0](x), split[:, :, 0], split[:, :, 1], mask)
        return x + self.mlp(self.norms[2](x))


def _logit(p: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.log(p) - jnp.log1p(-p)


def _normal(rngs: nnx.Rngs, *shape: int) -> Array:
    return jax.random.normal(rngs.params(), shape, jnp.float32)
