"""The Vision IRP: frames in, the teacher's image tokens and vision attention out after every refinement step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from student_jax import config, cost, irp, layers, pixels
from student_jax.irps import judge, objects, readout

LIMIT = 256.0  # a token value beyond this is no feature any more; trained tokens stay below 30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Meta:
    """What stays the same through the refinement."""

    patches: Any  # float32 [b, f, p, d], patch features as every step sees them again
    frame_mask: Any  # bool [b, f]


class VisionIrp(nnx.Module):
    """Patch transformer whose last blocks are weight-shared over refinement steps.

    init_state: patches -> stem blocks = tokens x [b, f, p, d], f = t * v frames, each seen on its own. step:
    x + gate[step] * (what the step blocks add to x + patches + step embedding). All steps share the heads, so every
    state is valid.
    """

    def __init__(self, vision: config.VisionConfig, target: config.Target, *, rngs: nnx.Rngs):
        width, dtype = vision.width, vision.dtype
        self.config = vision
        self.target = target
        self.embed = layers.PatchEmbedding(vision.patch, width, dtype=dtype, rngs=rngs)
        self.position = nnx.Param(jnp.asarray(_sinusoids(vision.grid, width)))
        self.stem = nnx.List([self._block(rngs) for _ in range(vision.stem_blocks)])
        self.again = layers.Linear(width, width, dtype=dtype, rngs=rngs)
        self.step_embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vision.max_steps, width), jnp.float32))
        self.blocks = nnx.List([self._block(rngs) for _ in range(vision.step_blocks)])
        # A gate per step, ever smaller: with one for all, a block that is shared overshoots in its last steps.
        shrinking = 0.3 ** jnp.arange(vision.max_steps, dtype=jnp.float32)
        self.gate = nnx.Param(jnp.tile(shrinking[:, None], (1, width)))
        self.readout = readout.Readout(width, vision.grid, target=target, dtype=dtype, rngs=rngs)
        self.error_norm = layers.RmsNorm(width)
        self.error_up = layers.Linear(width, width // 2, dtype=dtype, rngs=rngs)
        self.error_out = layers.Linear(width // 2, 1, dtype=jnp.float32, rngs=rngs, scale=0.0)
        self.mean = layers.Statistic(jnp.zeros(target.width, jnp.float32))
        self.basis = layers.Statistic(jnp.eye(target.width, dtype=jnp.float32))
        self.error_scale = layers.Statistic(jnp.ones((), jnp.float32))
        self.is_folded = False
        if vision.objects:
            self.object_head = objects.Objects(width, vision.grid, count=vision.objects, rngs=rngs)

    def _block(self, rngs: nnx.Rngs) -> layers.Block:
        vision = self.config
        depth = vision.stem_blocks + vision.step_blocks
        scale = (2 * depth) ** -0.5
        return layers.Block(vision.width, vision.heads, vision.mlp, dtype=vision.dtype, rngs=rngs, scale=scale)

    @property
    def description(self) -> irp.Description:
        return irp.Description(
            name="vision",
            state_space="student tokens float32 [b, frames, patches, width], each value within +-256",
            noise="none",
            error="image_tokens: mean squared error over valid frames, tokens and channels in the standardised basis",
            max_steps=self.config.max_steps,
        )

    def init_state(self, inputs: irp.Inputs, key: Array) -> irp.State:
        """Frames -> stem tokens. The key is ignored: there is no noise."""
        b, t, v, h, w = _frame_shape(inputs.video)
        frames, side = inputs.video.reshape(b * t * v, h, w, 3), self.side(h, w)
        canvas = side * self.config.patch
        embedded = self.embed(pixels.patches(frames, canvas, self.config.patch)) + self._positions(side)[None]
        x = embedded
        for block in self.stem:
            x = block(x)
        x, again = (y.reshape(b, t * v, *y.shape[1:]) for y in (x, self.again(embedded)))
        meta = Meta(again, inputs.frame_mask.reshape(b, t * v))
        return irp.State(x, jnp.zeros(b, jnp.int32), jnp.ones(b, jnp.float32), meta)

    def side(self, height: int, width: int) -> int:
        """Tokens along a side for frames of this size."""
        vision = self.config
        if not vision.crop:
            return vision.grid
        if height != width or height % vision.patch or height > vision.canvas:
            raise ValueError(
                f"Inputs.video of {height} x {width} pixels: this student takes squares of whole {vision.patch}-pixel "
                f"patches up to {vision.canvas}."
            )
        return height // vision.patch

    def _positions(self, side: int) -> Float[Array, "p d"]:
        grid = self.config.grid
        return self.position[...].reshape(grid, grid, -1)[:side, :side].reshape(side * side, -1)

    def step(self, state: irp.State, inputs: irp.Inputs) -> irp.State:
        """One refinement; past the last one the last embedding and gate are used again."""
        index = jnp.minimum(state.step, self.config.max_steps - 1)
        embedding = self.step_embedding[...][index][:, None, None]
        before = (state.x + state.meta.patches + embedding).reshape(-1, *state.x.shape[2:])
        after = before
        for block in self.blocks:
            after = block(after)
        added = (after - before).reshape(state.x.shape)
        x = state.x + self.gate[...][index][:, None, None] * added
        return dataclasses.replace(state, x=x, step=state.step + 1)

    def project(self, state: irp.State) -> irp.State:
        """Clip to +-LIMIT; a NaN stays one and is reported."""
        return dataclasses.replace(state, x=jnp.clip(state.x, -LIMIT, LIMIT))

    def energy(self, state: irp.State) -> Float[Array, " b"]:
        """Predicted e / (e + error_scale), e averaged over the sample's valid frames; 1 when it has none."""
        return judge.energy(self.log_error(state), self.error_scale[...], state.meta.frame_mask)

    def log_error(self, state: irp.State) -> Float[Array, "b f"]:
        """Predicted log e of each frame. Train it on `jax.lax.stop_gradient(state)` to keep the tokens out of it."""
        return judge.log_error(state.x, self.error_norm, self.error_up, self.error_out)

    def objects(self, state: irp.State) -> Float[Array, "b f n 3"]:
        """Where the task's objects are: row and column in [0, 1] of the frame, and a logit of being visible.

        Taught by simulator truth, never the teacher's.
        """
        if not self.config.objects:
            raise ValueError("This student has no objects head; build it with VisionConfig(objects=how many).")
        return self.object_head(state.x)

    def context(self, state: irp.State) -> Float[Array, "b f p d"]:
        """The student's tokens, for the modules that read them."""
        return state.x

    def folded(self) -> "VisionIrp":
        """The same function for inference: the change of basis is part of the token head, the patch kernel is held by
        pixel. It has fewer values and products, and no `standardised` tokens any more."""
        other = nnx.clone(self)
        other.embed = self.embed.folded()
        other.readout = self.readout.folded(self.basis[...], self.mean[...])
        del other.basis, other.mean
        other.is_folded = True
        return other

    def standardised(self, state: irp.State) -> Float[Array, "b f k c"]:
        """Image tokens in the standardised basis, where every channel has variance 1 over the training set."""
        if self.is_folded:
            raise ValueError("A folded student only has `output`; train and measure the one it was folded from.")
        return self._read(state)[0]

    def log_attention(self, state: irp.State) -> Float[Array, "b f k"]:
        """Logarithm of the vision attention."""
        return self._read(state)[1]

    def output(self, state: irp.State) -> dict[str, Array]:
        """`image_tokens` [b, f, tokens, width], teacher's basis; `vision_attention` [b, f, tokens], sum 1 per tile.

        With an objects head, `objects` [b, f, n, 3] too. Nothing where the frames were a part of the canvas: a teacher
        sees it whole.
        """
        if state.x.shape[2] != self.config.grid**2:
            return {}
        tokens, log_attention = self._read(state)
        if not self.is_folded:
            tokens = layers.product(tokens, self.basis[...], self.config.dtype)
            tokens = tokens + layers.along_last(self.mean[...], tokens)
        seen = {"objects": self.objects(state)} if self.config.objects else {}
        return {"image_tokens": tokens, "vision_attention": jnp.exp(log_attention)} | seen

    def _read(self, state: irp.State) -> tuple[Array, Array]:
        b, f = state.x.shape[:2]
        tokens, log_attention = self.readout(state.x.reshape(b * f, *state.x.shape[2:]))
        return tokens.reshape(b, f, *tokens.shape[1:]), log_attention.reshape(b, f, -1)

    def flops(self, inputs: irp.Inputs) -> cost.Flops:
        """Per sample; masked frames are computed too and counted."""
        _, t, v, h, w = _frame_shape(inputs.video)
        vision, tokens = self.config, self.side(h, w) ** 2
        block = cost.block(tokens, vision.width, mlp=vision.mlp)
        error = judge.flops(tokens, vision.width, vision.width // 2)
        embed = pixels.flops(h, w, self.side(h, w) * vision.patch) + cost.linear(
            tokens, 3 * vision.patch**2, vision.width
        )
        frames = t * v
        located = self.object_head.flops() if vision.objects else 0.0
        basis = 0.0 if self.is_folded else cost.linear(self.target.tokens, *[self.target.width] * 2)
        again = cost.linear(tokens, vision.width, vision.width)
        return cost.Flops(
            init=frames * (embed + vision.stem_blocks * block + again + error) + self.embed.flops(),
            step=frames * (vision.step_blocks * block + error),
            output=frames * (self.readout.flops() + basis + located),
        )


def _frame_shape(video: irp.Leaf) -> tuple:
    """(b, t, v, h, w) of a checked video; b may be symbolic."""
    if video.ndim != 6 or video.shape[-1] != 3 or video.dtype != jnp.uint8:
        raise ValueError(
            f"Inputs.video must be uint8 [b, t, v, h, w, 3]; got {video.dtype} {video.shape}. "
            "Pass raw RGB frames with a time and a view axis: the student resizes and normalises them itself."
        )
    return video.shape[:5]


def _sinusoids(grid: int, width: int) -> np.ndarray:
    """2-D sine-cosine positions [grid * grid, width], the start of the learned ones."""
    frequency = 0.5 * 10.0 ** (-np.arange(-(-width // 4)) * 4 / width) * np.pi / 2
    angle = np.arange(grid)[:, None] * frequency
    axis = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)  # [grid, about width / 2]
    rows, columns = np.repeat(axis, grid, axis=0), np.tile(axis, (grid, 1))
    return 0.5 * np.concatenate([rows, columns], axis=-1)[:, :width].astype(np.float32)
