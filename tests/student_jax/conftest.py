"""Small inputs, tiny plugins, and a scripted plugin whose energies a test writes down."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import config, cost, irp, presets, sizes
from student_jax.irps import control, language, vision


@pytest.fixture(scope="session", autouse=True)
def compile_quickly():
    """Half the time goes into compiling; nothing here is timed."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
        module = vision.VisionIrp(presets.make("tiny", target).vision, target, rngs=nnx.Rngs(seed))
        if lively:
            rng = np.random.default_rng(seed)
            for layer in (module.error_out, module.readout.attention):
                layer.kernel[...] = jnp.asarray(rng.normal(size=layer.kernel.shape), jnp.float32)
        return module

    return make


@pytest.fixture(scope="session")
def make_robot():
    """The configuration of a tiny student that acts: 2 views of 16 tokens, chunks of 4 actions of 3 numbers."""

    def make(**changes):
        target = config.Target(width=8, grid=4)
        made = presets.make("tiny", target, task="robot", robot=config.Robot(sizes.ActionSpace(4, 3, 5), objects=2))
        return dataclasses.replace(made, **changes)

    return make


@pytest.fixture(scope="session")
def make_observation():
    """Robot inputs; `context` adds what vision and language would have found."""

    def make(b=2, length=6, context=True, noise=True, seed=0):
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return jnp.asarray(rng.normal(size=shape), jnp.float32)

        found = {
            "vision": normal(b, 2, 16, 16),
            "language": {"tokens": normal(b, 9, 24), "mask": jnp.ones((b, 9), bool).at[:, 7:].set(False)},
        }
        return irp.Inputs(
            video=jnp.asarray(rng.integers(0, 256, (b, 1, 2, 40, 40, 3), dtype=np.uint8)),
            state=normal(b, 1, 5),
            tokens=jnp.asarray(rng.integers(1, 300, (b, length)), jnp.int32),
            token_mask=jnp.ones((b, length), bool).at[:, 4:].set(False),
            frame_mask=jnp.ones((b, 1, 2), bool),
            context=found if context else {},
            noise=normal(b, 4, 3) if noise else None,
        )

    return make


@pytest.fixture(scope="session")
def make_language(make_robot):
    made = make_robot()
    base = built(lambda: language.LanguageIrp(made.language, made.vision, made.target, rngs=nnx.Rngs(0)))

    def make(lively=True):
        """`lively` gives the zero-initialised heads weights, so that energies differ."""
        module = nnx.clone(base)
        return enliven(module.judge.out) and module if lively else module

    return make


@pytest.fixture(scope="session")
def make_control(make_robot):
    made = make_robot()
    context = made.language.width
    base = built(lambda: control.ControlIrp(made.control, made.actions, context=context, rngs=nnx.Rngs(0)))

    def make(lively=True):
        module = nnx.clone(base)
        return enliven(module.judge.out, module.out, module.modulate) and module if lively else module

    return make


def built(make):
    """A module made in one compiled function: eagerly, every shape would be compiled on its own."""
    graph = nnx.split(nnx.eval_shape(make))[0]
    return nnx.merge(graph, jax.jit(lambda: nnx.split(make())[1])())


def enliven(*heads):
    rng = np.random.default_rng(0)
    for head in heads:
        head.kernel[...] = jnp.asarray(0.3 * rng.normal(size=head.kernel.shape), jnp.float32)
    return True


class Compiled:
    """A plugin with every method compiled: eagerly, each of their operations would be compiled on its own."""

    def __init__(self, plugin):
        self.description, self.flops = plugin.description, plugin.flops
        for name in ("init_state", "step", "project", "energy", "output"):
            setattr(self, name, jax.jit(getattr(plugin, name)))


@pytest.fixture(scope="session")
def compiled_plugin():
    return Compiled
