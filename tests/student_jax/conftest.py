"""Small inputs, a tiny vision plugin, and a scripted plugin whose energies a test writes down."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import config, cost, irp
from student_jax.irps import vision


class Scripted:
    """x counts its steps; the energy after step k of a sample is `energies[i][k]`, i its first token."""

    def __init__(self, energies):
        self.energies = jnp.asarray(energies, jnp.float32)

    @property
    def description(self):
        return irp.Description("scripted", "a counter", "none", "the one written down", self.energies.shape[1] - 1)

    def init_state(self, inputs, key):
        row = inputs.tokens[:, 0]
        return irp.State(jnp.zeros((row.size, 1)), jnp.zeros_like(row), jnp.ones(row.size), self.energies[row])

    def step(self, state, inputs):
        return dataclasses.replace(state, x=state.x + 1, step=state.step + 1)

    def project(self, state):
        return state

    def energy(self, state):
        return jnp.take_along_axis(state.meta, state.step[:, None], axis=1)[:, 0]

    def output(self, state):
        return {"count": state.x}

    def flops(self, inputs):
        return cost.Flops(init=0.0, step=cost.FLOP_PER_ATP, output=0.0)


@pytest.fixture
def scripted():
    return Scripted


@pytest.fixture
def make_inputs():
    def make(b=2, t=1, v=1, h=40, w=40, seed=0):
        rng = np.random.default_rng(seed)
        return irp.Inputs(
            video=jnp.asarray(rng.integers(0, 256, (b, t, v, h, w, 3), dtype=np.uint8)),
            state=jnp.zeros((b, 1, 16)),
            tokens=jnp.arange(b, dtype=jnp.int32)[:, None],
            token_mask=jnp.ones((b, 1), bool),
            frame_mask=jnp.ones((b, t, v), bool),
        )

    return make


@pytest.fixture
def make_vision():
    def make(target=None, seed=0, lively=True):
        """Tiny, in float32; `lively` gives the zero-initialised heads weights, so that energies differ."""
        target = target or config.Target(width=8, grid=4)
        module = vision.VisionIrp(config.make("tiny", target).vision, target, rngs=nnx.Rngs(seed))
        if lively:
            rng = np.random.default_rng(seed)
            for layer in (module.error_out, module.readout.attention):
                layer.kernel[...] = jnp.asarray(rng.normal(size=layer.kernel.shape), jnp.float32)
        return module

    return make
