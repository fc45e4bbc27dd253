"""The IRP (Iterative Refinement Primitive) contract: inputs, state, plugin protocol; and `refine`, which runs any."""

import dataclasses
import enum
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from student_jax import cost

Leaf = Any  # an array with the batch axis first; unchecked, because jax also builds pytrees of shapes and placeholders


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """A deployable observation inside the graph; strings have ended at the tokenizer."""

    video: Leaf  # uint8 [b, t, v, h, w, 3]
    state: Leaf  # float32 [b, 1, d], normalised by the embodiment's statistics
    tokens: Leaf  # int32 [b, l]
    token_mask: Leaf  # bool [b, l]
    frame_mask: Leaf  # bool [b, t, v], False where a frame is padding or its camera is lost
    context: Leaf = dataclasses.field(default_factory=dict)  # what earlier modules found, by name; set by the Student
    noise: Leaf = None  # float32 [b, h, a], x_0 to start from instead of 0; or [b * n, h, a], each
    # row's n draws one after another, at the price of one reading of the context: for `unroll` alone


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """One refinement state. Every leaf has the batch axis first; nothing in it is ever changed in place."""

    x: Leaf  # what is refined, a pytree
    step: Leaf  # int32 [b], refinement steps behind this state
    energy: Leaf  # float32 [b], set by `start` and `advance`
    meta: Leaf  # context that stays the same through the refinement, a pytree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trace:
    """Telemetry of one `refine`, per sample."""

    energy: Leaf  # float32 [b, max_steps + 1], after 0, 1, ... steps; entries past `steps` repeat the last one
    steps: Leaf  # int32 [b], steps run (the returned state may be an earlier one: its own `step` says which)
    reason: Leaf  # int32 [b], a `Reason`


class Reason(enum.IntEnum):
    """Why a sample stopped. RUNNING never leaves `refine`."""

    RUNNING = 0
    CONVERGED = 1  # the best energy fell less than `min_fall` over the patience window, and the energy stayed beside it
    FEASIBLE = 2  # energy <= halt.feasible
    MAX_STEPS = 3
    BUDGET = 4
    OSCILLATING = 5  # no progress, and the energy rose and fell again
    DIVERGING = 6  # no progress, and the energy rose
    INVALID = 7  # an energy outside [0, 1] or not a number


@dataclasses.dataclass(frozen=True)
class Halt:
    """When to stop before the budget does."""

    min_fall: float = 0.01
    """Relative fall of the best energy over the patience window below which a sample stops; 0 never stops it."""
    patience: int = 1
    """Length of that window in steps."""
    feasible: float = 0.0
    """An energy at or below this is good enough; 0 asks for a perfect one."""

    def __post_init__(self):
        if not 0 <= self.min_fall < 1 or self.patience < 1 or not 0 <= self.feasible <= 1:
            raise ValueError(f"Halt needs 0 <= min_fall < 1, patience >= 1 and 0 <= feasible <= 1; got {self}.")


NEVER = Halt(min_fall=0.0)
"""Halts nothing before its steps are taken, but for an energy of exactly nought."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What every plugin declares about itself."""

    name: str
    state_space: str
    """What `State.x` is: axes, units, range."""
    noise: str
    """Where randomness enters; "none" promises that the key is ignored."""
    error: str
    """The named error that the energy predicts."""
    max_steps: int
    """Steps after which more are pointless; a plugin that needs one pass says 1."""


@runtime_checkable  # the jaxtyping checker asks isinstance
class Irp(Protocol):
    """The plugin contract; `conformance.check` holds a plugin to it."""

    @property
    def description(self) -> Description: ...

    def init_state(self, inputs: Inputs, key: Array) -> State:
        """Input -> a first, already valid state with `step` 0."""

    def step(self, state: State, inputs: Inputs) -> State:
        """One refinement: a new state with `step` one higher."""

    def project(self, state: State) -> State:
        """Hard constraints; idempotent."""

    def energy(self, state: State) -> Float[Array, " b"]:
        """Predicted e / (e + median validation e) of the named error e, in [0, 1]; lower is better; pure."""

    def output(self, state: State) -> dict[str, Array]:
        """Everything the state says, by feature name."""

    def flops(self, inputs: Inputs) -> cost.Flops:
        """Cost per sample from the inputs' static shapes."""


@runtime_checkable
class Source(Protocol):
    """A plugin that later modules read."""

    def context(self, state: State) -> Any:
        """What they find in `Inputs.context` under this module's name; every leaf has the batch axis first."""


def found(inputs: Inputs, name: str) -> Any:
    """The context that module `name` left; without it, an error that says how to get it."""
    if name not in inputs.context:
        raise ValueError(
            f"Inputs.context has no {name!r} (it has {sorted(inputs.context)}); run the whole Student, or take the "
            "inputs from Student.prepared."
        )
    return inputs.context[name]


def start(irp: Irp, inputs: Inputs, key: Array) -> State:
    """The initial state: projected, with its energy."""
    return _scored(irp, irp.init_state(inputs, key))


def advance(irp: Irp, state: State, inputs: Inputs) -> State:
    """The next state: stepped, projected, with its energy."""
    return _scored(irp, irp.step(state, inputs))


def _scored(irp: Irp, state: State) -> State:
    state = irp.project(state)
    return dataclasses.replace(state, energy=irp.energy(state).astype(jnp.float32))


def unroll(irp: Irp, inputs: Inputs, key: Array, steps: int, *, first: State | None = None) -> list[State]:
    """The states after 0, 1, ..., `steps` steps, none halted: to supervise every one. first: as in `refine`."""
    states = [start(irp, inputs, key) if first is None else first]
    for _ in range(steps):
        states.append(advance(irp, states[-1], inputs))
    return states


def refine(
    irp: Irp,
    inputs: Inputs,
    key: Array,
    budget: Int[Array, " b"],
    halt: Halt,
    *,
    mode: Literal["scan", "while"] = "while",
    first: State | None = None,
    judged: bool = True,
) -> tuple[State, Trace]:
    """Refine each sample until it halts or its `budget` of steps ends; return the first of lowest energy and the trace.

    first: what `start` gave, where it is at hand. judged: whether its energy was taught; otherwise it stops nothing,
    and the last state is returned. `scan` runs max_steps with a per-sample mask and has a reverse gradient; `while`
    stops once every sample has halted. Both give the same result. A budget below one step returns the initial state.
    """
    max_steps, halt = irp.description.max_steps, halt if judged else NEVER
    state = start(irp, inputs, key) if first is None else first
    energy = jnp.broadcast_to(state.energy[:, None], (state.energy.shape[0], max_steps + 1))
    reason = _judge(energy, jnp.int32(0), budget, max_steps=max_steps, halt=halt)
    carry = _Carry(jnp.int32(0), state, state, energy, reason)

    def tick(carry: _Carry) -> _Carry:
        return _tick(irp, inputs, carry, budget, max_steps=max_steps, halt=halt)

    if mode == "scan":
        carry, _ = jax.lax.scan(lambda carry, _: (tick(carry), None), carry, length=max_steps)
    elif mode == "while":
        carry = jax.lax.while_loop(lambda carry: jnp.any(carry.reason == Reason.RUNNING), tick, carry)
    else:
        raise ValueError(f'refine mode must be "scan" (training) or "while" (inference), got {mode!r}.')
    return carry.best if judged else carry.state, Trace(carry.energy, carry.state.step, carry.reason)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Carry:
    count: Leaf  # int32 [], steps run by the samples still going
    state: State
    best: State
    energy: Leaf  # float32 [b, max_steps + 1]
    reason: Leaf  # int32 [b]


def _tick(irp: Irp, inputs: Inputs, carry: _Carry, budget: Array, *, max_steps: int, halt: Halt) -> _Carry:
    running = carry.reason == Reason.RUNNING
    state = _select(running, advance(irp, carry.state, inputs), carry.state)
    count = carry.count + 1
    later = jnp.arange(max_steps + 1)[None] >= count
    energy = jnp.where(later, state.energy[:, None], carry.energy)
    better = (state.energy >= 0) & (state.energy < carry.best.energy)
    judged = _judge(energy, count, budget, max_steps=max_steps, halt=halt)
    reason = jnp.where(running, judged, carry.reason)
    return _Carry(count, state, _select(better, state, carry.best), energy, reason)


def _select(mask: Array, new: State, old: State) -> State:
    def pick(new: Array, old: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(new) - 1)), new, old)

    return jax.tree.map(pick, new, old)


def _judge(energy: Array, count: Array, budget: Array, *, max_steps: int, halt: Halt) -> Array:
    """Asked before every step: the `Reason` after `count` steps, given energies [b, max_steps + 1]. int32 [b]."""
    index = jnp.arange(max_steps + 1)[None]
    now = jnp.take(energy, count, axis=1)
    best = jnp.min(energy, axis=1)  # entries past `count` repeat the current one
    before = jnp.min(jnp.where(index <= count - halt.patience, energy, jnp.inf), axis=1)
    slack = halt.min_fall * before
    stale = (count >= halt.patience) & (before - best < slack)
    window_peak = jnp.max(jnp.where(index >= count - halt.patience, energy, -jnp.inf), axis=1)
    flat = window_peak - best <= slack
    rise = jnp.diff(energy, axis=1)
    rose_before = jnp.cumsum(rise > slack[:, None], axis=1) > 0
    turned = jnp.any((rise < -slack[:, None]) & rose_before, axis=1)
    stalled = jnp.where(flat, Reason.CONVERGED, jnp.where(turned, Reason.OSCILLATING, Reason.DIVERGING))

    reason = jnp.where(count >= budget, Reason.BUDGET, Reason.RUNNING)
    reason = jnp.where(count >= max_steps, Reason.MAX_STEPS, reason)
    reason = jnp.where(stale, stalled, reason)
    reason = jnp.where(now <= halt.feasible, Reason.FEASIBLE, reason)
    return jnp.where((now >= 0) & (now <= 1), reason, Reason.INVALID).astype(jnp.int32)
