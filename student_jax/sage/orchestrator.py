"""The orchestrator: one decision of a student within a budget, module after module, with an account of each."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from student_jax import cost, irp
from student_jax.sage import budget, h_module


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Account:
    """What became of one module in one decision, per sample."""

    granted: Any  # float32 [b], ATP that it might have spent
    spent: Any  # float32 [b], ATP that it spent; the rest went to those after it
    planned: Any  # int32 [b], steps that the H-module asked for
    steps: Any  # int32 [b], steps run
    reason: Any  # int32 [b], an irp.Reason; BUDGET also where no more steps were planned
    energy: Any  # float32 [b, k + 1], after 0..k steps; entries past `steps` repeat the last one
    gate: Any  # float32 [b], how much of it reached its readers; 1 where nothing gates it


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Run:
    """What all modules came to."""

    states: dict[str, irp.State]
    accounts: dict[str, Account]
    brief: Any  # h_module.Brief, or None for a student without one
    left: Any  # float32 [b], ATP that nobody used
    embedding: Any  # float32 [b, f, d], of each frame at first sight, by which the host tells whether it was surprised


def think(
    student: nnx.Module,
    inputs: irp.Inputs,
    first: irp.State,
    *,
    trust: Float[Array, "b m"],
    thrift: Float[Array, " b"],
) -> tuple[irp.Inputs, h_module.Brief]:
    """Inputs with the text read once, and the H-module's brief. first: the Vision IRP's first state."""
    inputs = dataclasses.replace(inputs, context=inputs.context | {"text": student.language.read(inputs)})
    return inputs, student.h_module(sight(inputs, first, trust, thrift))


def sight(
    inputs: irp.Inputs, first: irp.State, trust: Float[Array, "b m"], thrift: Float[Array, " b"]
) -> h_module.Sight:
    """What the H-module reads, from inputs whose text was read."""
    frames = inputs.frame_mask.reshape(inputs.frame_mask.shape[0], -1)
    return h_module.Sight(first.x, frames, inputs.context["text"], inputs.token_mask, inputs.state, trust, thrift)


def run(
    student: nnx.Module,
    inputs: irp.Inputs,
    atp: Float[Array, " b"],
    trust: Float[Array, "b m"],
    key: Array,
    *,
    mode: Literal["scan", "while"] = "while",
    depth: int | None = None,
    silence: tuple[str, ...] = (),
) -> Run:
    """Every module in order, within what is left of the budget: ATP that one does not use reaches those after it.

    depth: steps that every module takes at most, instead of as many as the H-module says. silence: modules to do
    without, to see what each is good for: what they say reaches nobody, and a control stays at its first answer.
    """
    table, modules = student.table(inputs), student.modules
    most = {name: module.description.max_steps for name, module in modules.items()}
    thrift = budget.thrift(atp, budget.full(table, most))
    first, brief = irp.start(student.vision, inputs, jax.random.fold_in(key, 0)), None
    if student.config.h_module:
        inputs, brief = think(student, inputs, first, trust=trust, thrift=thrift)
        brief = silenced(brief, [index for index, name in enumerate(modules) if name in silence])
    planned = plans(student, brief if depth is None else None, thrift, batch=atp.shape[0])
    planned = {name: steps if depth is None else jnp.minimum(steps, depth) for name, steps in planned.items()}
    planned |= {name: 0 * planned[name] for name in silence if name == "control"}
    requests = jnp.stack([planned[name] * jnp.float32(table[name].step_atp) for name in modules], axis=1)
    found = Run({}, {}, brief, atp, first.x.mean(axis=2))
    for index, (name, module) in enumerate(modules.items()):
        start = first if index == 0 else None
        granted = budget.shares(found.left, (trust * requests)[:, index:])[:, 0]
        allowed = budget.affordable(granted, table[name].step_atp, max_steps=most[name])
        steps, key_here = jnp.minimum(allowed, planned[name]), jax.random.fold_in(key, index)
        state, trace = irp.refine(module, inputs, key_here, steps, student.config.halt, mode=mode, first=start)
        inputs = tell(student, inputs, name, state, brief)
        account = _account(table[name], granted, planned[name], trace, _gate(student, brief, index, atp))
        left = budget.pay(found.left, trace.steps, table[name].step_atp)
        states, accounts = found.states | {name: state}, found.accounts | {name: account}
        found = dataclasses.replace(found, states=states, accounts=accounts, left=left)
    return found


def silenced(brief: h_module.Brief, which: list[int]) -> h_module.Brief:
    """The brief with the gates of some modules shut."""
    shut = jnp.isin(jnp.arange(brief.gates.shape[1]), jnp.array(which, jnp.int32))
    return dataclasses.replace(brief, gates=jnp.where(shut[None], 0.0, brief.gates))


def plans(
    student: nnx.Module, brief: h_module.Brief | None, thrift: Float[Array, " b"], *, batch: Any
) -> dict[str, Int[Array, " b"]]:
    """Steps that each module should take; all of them where there is no H-module."""
    if brief is None:
        return {name: jnp.full(batch, m.description.max_steps, jnp.int32) for name, m in student.modules.items()}
    price = student.config.h_module.price
    return {name: budget.wanted(worth, thrift, price=price) for name, worth in brief.log_worth.items()}


def bought(
    table: dict[str, cost.Flops],
    most: dict[str, int],
    planned: dict[str, Int[Array, " b"]],
    trust: Float[Array, "b m"],
    atp: Float[Array, " b"],
) -> dict[str, Int[Array, " b"]]:
    """Steps that each module gets to run if none halts by itself: what `run` allows, without running."""
    requests = jnp.stack([planned[name] * jnp.float32(table[name].step_atp) for name in most], axis=1)
    left, steps = atp, {}
    for index, name in enumerate(most):
        granted = budget.shares(left, (trust * requests)[:, index:])[:, 0]
        allowed = budget.affordable(granted, table[name].step_atp, max_steps=most[name])
        steps[name] = jnp.minimum(allowed, planned[name])
        left = budget.pay(left, steps[name], table[name].step_atp)
    return steps


def tell(
    student: nnx.Module, inputs: irp.Inputs, name: str, state: irp.State, brief: h_module.Brief | None
) -> irp.Inputs:
    """`inputs` with what later modules read of this one, gated."""
    module = student.modules[name]
    if not isinstance(module, irp.Source):
        return inputs
    context = module.context(state)
    if brief is not None:
        gate = {"vision": student.h_module.gated_sight, "language": student.h_module.gated_fusion}
        context = gate[name](context, brief) if name in gate else context
    return dataclasses.replace(inputs, context=inputs.context | {name: context})


def _gate(
    student: nnx.Module, brief: h_module.Brief | None, index: int, like: Float[Array, " b"]
) -> Float[Array, " b"]:
    read = isinstance(list(student.modules.values())[index], irp.Source)
    return brief.gates[:, index] if brief is not None and read else jnp.ones_like(like)


def _account(table: cost.Flops, granted: Array, planned: Array, trace: irp.Trace, gate: Array) -> Account:
    spent = trace.steps * jnp.float32(table.step_atp)
    return Account(granted, spent, planned, trace.steps, trace.reason, trace.energy, gate)
