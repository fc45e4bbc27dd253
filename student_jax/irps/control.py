"""The Control IRP: a flow map that carries a noise x_0 to the teacher's action chunk for the same x_0, and x_0 = 0 to
what the student itself does."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Num

from student_jax import cost, irp, layers, sizes
from student_jax.irps import judge

LIMIT = 256.0  # of a hidden value


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Meta:
    """What stays the same through the refinement."""

    noise: Any  # float32 [m, h, a], x_0; m is b, or b * n where each observation has n draws
    features: Any  # float32 [m, d], of the robot's state and the mean context
    robot: Any  # float32 [m, 1, d], the state's own token
    keys: Any  # compute dtype [b, t, heads, d / heads], of the context's tokens
    values: Any  # likewise
    mask: Any  # bool [b, t], which of them may be read


class ControlIrp(nnx.Module):
    """Action tokens that read the fused context in blocks weight-shared over refinement steps.

    x = {"actions": [b, h, a], "hidden": [b, h, d]}. init_state: a prior from state and mean context, plus a small
    share of x_0. step: tokens of (x_k, x_0) and of what the last step left, modulated by the step and the state, read
    the context, each other and the state's token; actions x_{k+1} = x_k + out(tokens). Keys and values are made once
    and shared by all blocks and steps.
    """

    def __init__(self, control: sizes.ControlConfig, actions: sizes.ActionSpace, *, context: int, rngs: nnx.Rngs):
        """`context`: channels of the tokens that the module before leaves."""
        width, dtype, chunk = control.width, control.dtype, (actions.horizon, actions.width)
        exact = {"dtype": jnp.float32, "rngs": rngs}  # small, and next to the actions themselves
        self.config = control
        self.actions = actions
        self.context_norm = layers.RmsNorm(context)
        self.keys_values = layers.Linear(context, 2 * width, dtype=dtype, rngs=rngs)
        self.situation = layers.Linear(actions.state + context, width, **exact)
        self.prior = layers.Linear(width, actions.horizon * actions.width, scale=0.3, **exact)
        self.spread = nnx.Param(jnp.full(chunk, 0.1, jnp.float32))
        self.robot = layers.Linear(actions.state, width, **exact)
        self.embed = layers.Linear(2 * actions.width, width, **exact)
        self.position = nnx.Param(0.3 * jax.random.normal(rngs.params(), (actions.horizon, width), jnp.float32))
        self.carry = nnx.Param(jnp.full(width, 0.5, jnp.float32))
        self.carry_norm = layers.RmsNorm(width)
        self.step_embedding = nnx.Param(0.3 * jax.random.normal(rngs.params(), (control.max_steps, width), jnp.float32))
        self.condition = layers.Linear(width, width // 8, **exact)
        self.modulate = layers.Linear(width // 8, 6 * width, scale=0.0, **exact)
        self.blocks = nnx.List([_Block(control, rngs=rngs) for _ in range(control.blocks)])
        self.out_norm = layers.RmsNorm(width)
        self.out = layers.Linear(width, actions.width, scale=0.0, **exact)
        self.judge = judge.Judge(width, dtype=dtype, rngs=rngs)
        self.low = layers.Statistic(jnp.full(actions.width, -1.0, jnp.float32))
        self.high = layers.Statistic(jnp.full(actions.width, 1.0, jnp.float32))
        self.error_scale = layers.Statistic(jnp.ones((), jnp.float32))

    @property
    def description(self) -> irp.Description:
        return irp.Description(
            name="control",
            state_space="actions float32 [b, horizon, width] in normalised units within the limits; hidden tokens",
            noise="x_0 float32 [b, horizon, width]: the one given (standard normal: as the teacher would act at it); "
            "without one 0, which is never drawn: what the student itself would do",
            error="actions: mean squared distance over horizon and width, in normalised units, to the teacher's chunk "
            "at the same x_0; at x_0 = 0 to what is taught there",
            max_steps=self.config.max_steps,
        )

    def init_state(self, inputs: irp.Inputs, key: Array) -> irp.State:
        """The prior, and everything of the context that later steps read."""
        context, state = irp.found(inputs, "language"), self._robot_state(inputs)
        b, n, _ = context["tokens"].shape
        seen = self.context_norm(context["tokens"])
        split = self.keys_values(seen).reshape(b, n, 2, self.config.heads, -1).astype(jnp.dtype(self.config.dtype))
        mean = layers.masked_mean(seen, context["mask"])
        features = jax.nn.gelu(self.situation(jnp.concatenate([state, mean], axis=-1)), approximate=True)
        noise = self._noise(inputs, b)
        rows = noise.shape[0]
        prior, robot = self.prior(features).reshape(b, *noise.shape[1:]), self.robot(state)[:, None]
        prior, features, robot = (jnp.repeat(each, rows // b, axis=0) for each in (prior, features, robot))
        meta = Meta(noise, features, robot, split[:, :, 0], split[:, :, 1], context["mask"])
        x = {
            "actions": prior + self.spread[...][None] * noise,
            "hidden": features[:, None] + self.position[...][None],
        }
        return irp.State(x, jnp.zeros(rows, jnp.int32), jnp.ones(rows, jnp.float32), meta)

    def _robot_state(self, inputs: irp.Inputs) -> Float[Array, "b s"]:
        if inputs.state.ndim != 3 or inputs.state.shape[1:] != (1, self.actions.state):
            raise ValueError(
                f"Inputs.state must be float32 [b, 1, {self.actions.state}], normalised; got {inputs.state.shape}. "
                "Build the Control IRP with the ActionSpace of this embodiment."
            )
        return inputs.state[:, 0]

    def _noise(self, inputs: irp.Inputs, batch: Any) -> Float[Array, "m h a"]:
        chunk = (self.actions.horizon, self.actions.width)
        if inputs.noise is None:
            return jnp.zeros((batch, *chunk), jnp.float32)
        if inputs.noise.ndim != 3 or inputs.noise.shape[1:] != chunk or inputs.noise.shape[0] % batch:
            raise ValueError(
                f"Inputs.noise must be float32 [b, {chunk[0]}, {chunk[1]}], or [b * n, ...] for n draws each; got "
                f"{inputs.noise.shape} for b = {batch}."
            )
        return inputs.noise

    def step(self, state: irp.State, inputs: irp.Inputs) -> irp.State:
        """One refinement; past the last one the last embedding is used again."""
        index, meta = jnp.minimum(state.step, self.config.max_steps - 1), state.meta
        modulation = self._modulation(self.step_embedding[...][index] + meta.features)
        tokens = self.embed(jnp.concatenate([state.x["actions"], meta.noise], axis=-1)) + self.position[...][None]
        tokens = tokens + self.carry[...][None, None] * self.carry_norm(state.x["hidden"])
        x = jnp.concatenate([tokens, meta.robot], axis=1)
        for block in self.blocks:
            x = block(x, modulation, meta.keys, meta.values, mask=meta.mask)
        hidden = x[:, : self.actions.horizon]
        actions = state.x["actions"] + self.out(self.out_norm(hidden))
        return dataclasses.replace(state, x={"actions": actions, "hidden": hidden}, step=state.step + 1)

    def _modulation(self, condition: Float[Array, "b d"]) -> Float[Array, "b 6 d"]:
        """Shift and scale of the three norms of a block, the same for all blocks (arXiv:2310.00426)."""
        raised = self.modulate(jax.nn.silu(self.condition(condition)))
        return raised.reshape(raised.shape[0], 6, self.config.width)

    def project(self, state: irp.State) -> irp.State:
        """Actions into [low, high], hidden tokens into +-LIMIT; a NaN stays one and is reported."""
        actions = clip_inwards(state.x["actions"], self.low[...][None, None], self.high[...][None, None])
        x = {"actions": actions, "hidden": jnp.clip(state.x["hidden"], -LIMIT, LIMIT)}
        return dataclasses.replace(state, x=x)

    def energy(self, state: irp.State) -> Float[Array, " b"]:
        """Predicted e / (e + error_scale)."""
        log_error = self.log_error(state)[:, None]
        return judge.energy(log_error, self.error_scale[...], jnp.ones(log_error.shape, bool))

    def log_error(self, state: irp.State) -> Float[Array, " b"]:
        """Predicted log e. Train it on `jax.lax.stop_gradient(state)` to keep the actions out of it."""
        return self.judge(state.x["hidden"])

    def output(self, state: irp.State) -> dict[str, Array]:
        """`actions` [b, h, a] in normalised units."""
        return {"actions": state.x["actions"]}

    def flops(self, inputs: irp.Inputs) -> cost.Flops:
        """Per sample, from the shape of the context; padding is computed too and counted."""
        control, actions, width = self.config, self.actions, self.config.width
        _, n, context = irp.found(inputs, "language")["tokens"].shape
        horizon, tokens = actions.horizon, actions.horizon + 1
        error = self.judge.flops(horizon)
        situation = cost.linear(1, actions.state + context, width) + cost.linear(1, actions.state, width)
        crossing = cost.linear(tokens, width, 2 * width) + 2 * cost.linear(tokens, width, n)
        block = crossing + cost.block(tokens, width, mlp=control.mlp)
        ends = cost.linear(horizon, 2 * actions.width, width) + cost.linear(horizon, width, actions.width)
        modulation = cost.linear(1, width, width // 8) + cost.linear(1, width // 8, 6 * width)
        return cost.Flops(
            init=cost.linear(n, context, 2 * width)
            + situation
            + cost.linear(1, width, horizon * actions.width)
            + error,
            step=control.blocks * block + ends + modulation + error,
            output=0.0,
        )


class _Block(nnx.Module):
    """Cross-attention, self-attention and MLP, each after a norm that is shifted and scaled from outside."""

    def __init__(self, control: sizes.ControlConfig, *, rngs: nnx.Rngs):
        width, heads, scale = control.width, control.heads, (3 * control.blocks) ** -0.5
        self.norms = nnx.List([layers.RmsNorm(width) for _ in range(3)])
        self.cross = layers.CrossAttention(width, heads, dtype=control.dtype, rngs=rngs, scale=scale)
        self.attention = layers.Attention(width, heads, dtype=control.dtype, rngs=rngs, scale=scale)
        self.mlp = layers.Mlp(width, control.mlp, dtype=control.dtype, rngs=rngs, scale=scale)

    def __call__(
        self,
        x: Float[Array, "m t d"],
        modulation: Float[Array, "m 6 d"],
        keys: Num[Array, "b n h c"],
        values: Num[Array, "b n h c"],
        *,
        mask: Bool[Array, "b n"],
    ) -> Float[Array, "m t d"]:
        def normed(x: Array, index: int) -> Array:
            shift, scale = modulation[:, 2 * index, None], modulation[:, 2 * index + 1, None]
            return self.norms[index](x) * (1.0 + scale) + shift

        x = x + self.cross(normed(x, 0), keys, values, mask)
        x = x + self.attention(normed(x, 1))
        return x + self.mlp(normed(x, 2))


@jax.custom_vjp
def clip_inwards(
    x: Float[Array, "b h a"], low: Float[Array, "1 1 a"], high: Float[Array, "1 1 a"]
) -> Float[Array, "b h a"]:
    """`x` clipped to [low, high]. From outside, only a gradient whose descent leads back inside passes: clip itself
    would never let a value that has once left come back. The limits get none."""
    return jnp.clip(x, low, high)


def _clip_forward(x, low, high):
    return clip_inwards(x, low, high), (x < low, x > high, low, high)


def _clip_backward(saved, cotangent):
    below, above, low, high = saved
    outwards = (below & (cotangent > 0)) | (above & (cotangent < 0))
    return jnp.where(outwards, 0.0, cotangent), jnp.zeros_like(low), jnp.zeros_like(high)


clip_inwards.defvjp(_clip_forward, _clip_backward)
