"""The Language IRP: an instruction and the Vision IRP's tokens in, the teacher's fused and text features out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from student_jax import config, cost, irp, layers, sizes
from student_jax.irps import judge, readout

LIMIT = 256.0  # a token value beyond this is no feature any more


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Meta:
    """What stays the same through the refinement."""

    token_mask: Any  # bool [b, l]
    frame_mask: Any  # bool [b, f]


class LanguageIrp(nnx.Module):
    """Text and image tokens that read each other in blocks weight-shared over refinement steps.

    init_state: token ids -> blocks over the text alone; the Vision IRP's tokens -> one linear map and an embedding of
    their frame. x = {"text": [b, l, d], "image": [b, f, p, d]}. step: x + gate[step] * (what the step blocks add to
    x + step embedding), text and image in one sequence. Padding and lost frames are never read.
    """

    def __init__(
        self, language: sizes.LanguageConfig, vision: config.VisionConfig, target: config.Target, *, rngs: nnx.Rngs
    ):
        width, dtype = language.width, language.dtype
        self.config = language
        self.patches = vision.grid**2
        self.target = target
        self.pieces = nnx.Param(_normal(rngs, (language.vocabulary, language.embedding), 1.0))
        self.widen = layers.Linear(language.embedding, width, dtype=dtype, rngs=rngs)
        self.position = nnx.Param(_normal(rngs, (language.length, width), 0.1))
        self.text_blocks = nnx.List([self._block(rngs) for _ in range(language.text_blocks)])
        self.image_norm = layers.RmsNorm(vision.width)
        self.image = layers.Linear(vision.width, width, dtype=dtype, rngs=rngs)
        self.frame = nnx.Param(_normal(rngs, (language.frames, width), 0.3))
        self.step_embedding = nnx.Param(_normal(rngs, (language.max_steps, width), 0.02))
        self.blocks = nnx.List([self._block(rngs) for _ in range(language.step_blocks)])
        shrinking = 0.3 ** jnp.arange(language.max_steps, dtype=jnp.float32)  # as in the Vision IRP
        self.gate = nnx.Param(jnp.tile(shrinking[:, None], (1, width)))
        self.readout = readout.Readout(width, vision.grid, target=target, dtype=dtype, rngs=rngs, heads="tokens")
        self.text_norm = layers.RmsNorm(width)
        self.text = layers.Linear(width, target.width, dtype=dtype, rngs=rngs)
        self.judge = judge.Judge(width, dtype=dtype, rngs=rngs)
        self.mean = layers.Statistic(jnp.zeros(target.width, jnp.float32))
        self.basis = layers.Statistic(jnp.eye(target.width, dtype=jnp.float32))
        self.text_mean = layers.Statistic(jnp.zeros(target.width, jnp.float32))
        self.text_scale = layers.Statistic(jnp.ones(target.width, jnp.float32))
        self.error_scale = layers.Statistic(jnp.ones((), jnp.float32))
        self.is_folded = False

    def _block(self, rngs: nnx.Rngs) -> layers.Block:
        language = self.config
        scale = (2 * (language.text_blocks + language.step_blocks)) ** -0.5
        return layers.Block(language.width, language.heads, language.mlp, dtype=language.dtype, rngs=rngs, scale=scale)

    @property
    def description(self) -> irp.Description:
        return irp.Description(
            name="language",
            state_space="text [b, l, width] and image [b, frames, patches, width] tokens float32, each within +-256",
            noise="none",
            error="adapted_features: mean squared error over valid frames, tokens and channels in the standardised "
            "basis",
            max_steps=self.config.max_steps,
        )

    def init_state(self, inputs: irp.Inputs, key: Array) -> irp.State:
        """Text read on its own, image tokens as the Vision IRP left them. The key is ignored: there is no noise."""
        vision, tokens = irp.found(inputs, "vision"), inputs.tokens
        b, f, _, _ = vision.shape
        self._check(tokens, vision)
        text = inputs.context["text"] if "text" in inputs.context else self.read(inputs)
        image = self.image(self.image_norm(vision)) + self.frame[:f][None, :, None]
        meta = Meta(inputs.token_mask, inputs.frame_mask.reshape(b, f))
        return irp.State({"text": text, "image": image}, jnp.zeros(b, jnp.int32), jnp.ones(b, jnp.float32), meta)

    def read(self, inputs: irp.Inputs) -> Float[Array, "b l d"]:
        """The text on its own; under "text" in `Inputs.context` it is not read again."""
        text = self.widen(self.pieces[...][inputs.tokens]) + self.position[: inputs.tokens.shape[1]][None]
        for block in self.text_blocks:
            text = block(text, inputs.token_mask)
        return text

    def _check(self, tokens: Array, vision: Array) -> None:
        language = self.config
        if tokens.shape[1] > language.length:
            raise ValueError(
                f"At most {language.length} text tokens, got {tokens.shape[1]}; raise LanguageConfig.length."
            )
        if vision.shape[1] > language.frames:
            raise ValueError(f"At most {language.frames} frames, got {vision.shape[1]}; raise LanguageConfig.frames.")

    def step(self, state: irp.State, inputs: irp.Inputs) -> irp.State:
        """One refinement; past the last one the last embedding and gate are used again."""
        index = jnp.minimum(state.step, self.config.max_steps - 1)
        x, mask = self.fused(state)
        before = x + self.step_embedding[...][index][:, None]
        after = before
        for block in self.blocks:
            after = block(after, mask)
        x = x + self.gate[...][index][:, None] * (after - before)
        length = state.x["text"].shape[1]
        refined = {"text": x[:, :length], "image": x[:, length:].reshape(state.x["image"].shape)}
        return dataclasses.replace(state, x=refined, step=state.step + 1)

    def fused(self, state: irp.State) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """Text, then image tokens in one sequence of n = l + f * p, and which of them may be read."""
        text, image, meta = state.x["text"], state.x["image"], state.meta
        b, f, p, d = image.shape
        seen = jnp.broadcast_to(meta.frame_mask[:, :, None], (b, f, p)).reshape(b, f * p)
        tokens = jnp.concatenate([text, image.reshape(b, f * p, d)], axis=1)
        return tokens, jnp.concatenate([meta.token_mask, seen], axis=1)

    def context(self, state: irp.State) -> dict[str, Array]:
        """`fused` by name, for the modules that read it."""
        tokens, mask = self.fused(state)
        return {"tokens": tokens, "mask": mask}

    def positions(self, inputs: irp.Inputs) -> int:
        """Length n of the fused sequence."""
        _, t, v = inputs.video.shape[:3]
        return inputs.tokens.shape[1] + t * v * self.patches

    def project(self, state: irp.State) -> irp.State:
        """Clip to +-LIMIT; a NaN stays one and is reported."""
        return dataclasses.replace(state, x=jax.tree.map(lambda x: jnp.clip(x, -LIMIT, LIMIT), state.x))

    def energy(self, state: irp.State) -> Float[Array, " b"]:
        """Predicted e / (e + error_scale), e averaged over the sample's valid frames; 1 when it has none."""
        return judge.energy(self.log_error(state), self.error_scale[...], state.meta.frame_mask)

    def log_error(self, state: irp.State) -> Float[Array, "b f"]:
        """Predicted log e of each frame. Train it on `jax.lax.stop_gradient(state)` to keep the tokens out of it."""
        return self.judge(state.x["image"])

    def folded(self) -> "LanguageIrp":
        """The same function for inference: both changes of basis are part of the heads; no `standardised` any more."""
        other = nnx.clone(self)
        other.readout = self.readout.folded(self.basis[...], self.mean[...])
        other.text.kernel[...] = self.text.kernel[...] * self.text_scale[...][None]
        other.text.bias[...] = self.text.bias[...] * self.text_scale[...] + self.text_mean[...]
        del other.basis, other.mean, other.text_scale, other.text_mean
        other.is_folded = True
        return other

    def standardised(self, state: irp.State) -> Float[Array, "b f k c"]:
        """Adapted features at the image positions in the standardised basis: variance 1 over the training set."""
        return self._trained(self._read(state))

    def standardised_text(self, state: irp.State) -> Float[Array, "b c"]:
        """Text features less their mean, over their scale, per channel."""
        return self._trained(self._read_text(state))

    def _trained(self, features: Array) -> Array:
        if self.is_folded:
            raise ValueError("A folded student only has `output`; train and measure the one it was folded from.")
        return features

    def output(self, state: irp.State) -> dict[str, Array]:
        """`adapted_features` [b, f, tokens, c] and `text_features` [b, c], both in the teacher's basis.

        The latter is the mean of the teacher's adapted features over its own positions of the instruction's text.
        """
        adapted, text = self._read(state), self._read_text(state)
        if not self.is_folded:
            adapted = layers.product(adapted, self.basis[...], self.config.dtype)
            adapted = adapted + layers.along_last(self.mean[...], adapted)
            text = text * self.text_scale[...][None] + self.text_mean[...][None]
        return {"adapted_features": adapted, "text_features": text}

    def _read(self, state: irp.State) -> Float[Array, "b f k c"]:
        image = state.x["image"]
        tokens = self.readout.tokens(image.reshape(-1, *image.shape[2:]))
        return tokens.reshape(*image.shape[:2], *tokens.shape[1:])

    def _read_text(self, state: irp.State) -> Float[Array, "b c"]:
        return self.text(layers.masked_mean(self.text_norm(state.x["text"]), state.meta.token_mask))

    def flops(self, inputs: irp.Inputs) -> cost.Flops:
        """Per sample; padding and masked frames are computed too and counted."""
        language, target = self.config, self.target
        width, length, positions = language.width, inputs.tokens.shape[1], self.positions(inputs)
        image = positions - length
        frames = image // self.patches
        error = frames * self.judge.flops(self.patches)
        text = language.text_blocks * cost.block(length, width, mlp=language.mlp)
        embed = cost.linear(length, language.embedding, width) + cost.linear(image, self.image.kernel.shape[0], width)
        basis = 0.0 if self.is_folded else cost.linear(target.tokens, target.width, target.width)
        return cost.Flops(
            init=embed + text + error,
            step=language.step_blocks * cost.block(positions, width, mlp=language.mlp) + error,
            output=frames * (self.readout.flops() + basis) + cost.linear(1, width, target.width),
        )


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], scale: float) -> Array:
    return scale * jax.random.normal(rngs.params(), shape, jnp.float32)
