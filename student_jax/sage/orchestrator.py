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

    def after(self, name: str, state: irp.State, account: Account) -> "Run":
        """With one module more; what it did not spend is left for those after it."""
        states, accounts = self.states | {name: state}, self.accounts | {name: account}
        return dataclasses.replace(self, states=states, accounts=accounts, left=self.left - account.spent)


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
    depth: int | Int[Array, ""] | None = None,
    silence: tuple[str, ...] = (),
) -> Run:
    """Every module in order, within what is left of the budget: ATP that one does not use reaches those after it.

    atp: beyond what all steps cost it changes nothing; negative or not a number it is none. trust: in [0, 1], none
    where it is not a number. depth: steps that every module takes within the budget, never halting, instead of as many
    as the H-module says and halting by its own energy. silence: modules to do without, to see what each is good for:
    what they say reaches nobody, and a control stays at its first answer.
    """
    table, modules = student.table(inputs), student.modules
    full = budget.full(table, {name: module.description.max_steps for name, module in modules.items()})
    atp, trust = budget.usable(atp, full), jnp.where(jnp.isfinite(trust), jnp.clip(trust, 0.0, 1.0), 0.0)
    thrift = budget.thrift(atp, full)
    first, brief = irp.start(student.vision, inputs, jax.random.fold_in(key, 0)), None
    if student.config.h_module:
        inputs, brief = think(student, inputs, first, trust=trust, thrift=thrift)
        brief = silenced(brief, [index for index, name in enumerate(modules) if name in silence])
    planner = Planner(student, table, brief, trust, depth)
    halt = student.config.halt if depth is None else irp.NEVER
    found = Run({}, {}, brief, atp, first.x.mean(axis=2))
    for index, (name, module) in enumerate(modules.items()):
        granted, planned = planner(found)
        steps = planned if name not in silence or name != "control" else 0 * planned
        known = {"first": first} if index == 0 else {}
        known["judged"] = name not in student.unjudged
        state, trace = irp.refine(module, inputs, jax.random.fold_in(key, index), steps, halt, mode=mode, **known)
        inputs = tell(student, inputs, name, state, brief)
        account = _account(table[name], granted, planned, trace, _gate(student, brief, index, atp))
        found = found.after(name, state, account)
    return found


def choices(student: nnx.Module, inputs: irp.Inputs) -> budget.Choices:
    """All ways in which a student's modules can take their steps on inputs of this shape."""
    table = student.table(inputs)
    most = [module.description.max_steps for module in student.modules.values()]
    return budget.Choices.of([table[name].step_atp for name in student.modules], most)


class Planner:
    """How many steps the next module takes, from what those before it took and left."""

    def __init__(
        self,
        student: nnx.Module,
        table: dict[str, cost.Flops],
        brief: h_module.Brief | None,
        trust: Float[Array, "b m"],
        depth: int | Int[Array, ""] | None,
    ):
        self.names, self.brief, self.trust, self.depth = list(student.modules), brief, trust, depth
        self.most = [module.description.max_steps for module in student.modules.values()]
        self.prices = [table[name].step_atp for name in self.names]
        self.choices = budget.Choices.of(self.prices, self.most)
        self.price = student.config.h_module.price if student.config.h_module else 0.0

    def __call__(self, found: Run) -> tuple[Float[Array, " b"], Int[Array, " b"]]:
        """(ATP that it may spend, steps to take). An H-module's prediction decides, within m times the module's share
        by trust (no limit where all are trusted alike); without one, or at a fixed `depth`, the share does."""
        index = len(found.states)
        shares = budget.shares(found.left, self.trust[:, index:])
        if self.brief is None or self.depth is not None:
            share = jnp.minimum(shares[:, 0] * budget.SLACK, found.left) if self.depth is None else found.left
            steps = budget.affordable(share, self.prices[index], max_steps=self.most[index])
            return share, steps if self.depth is None else jnp.minimum(steps, self.depth)
        caps = jnp.minimum(shares * shares.shape[1] * budget.SLACK, found.left[:, None])
        taken = [account.steps[:, None] for account in found.accounts.values()]
        taken = jnp.concatenate([jnp.zeros((found.left.shape[0], 0), jnp.int32), *taken], axis=1)
        caps = jnp.pad(caps, ((0, 0), (index, 0)))
        best = budget.choose(
            self.brief.log_error, self.choices, left=found.left, caps=caps, taken=taken, price=self.price
        )
        return caps[:, index], jnp.asarray(self.choices.steps)[best, index]


def silenced(brief: h_module.Brief, which: list[int]) -> h_module.Brief:
    """The brief with the gates of some modules shut."""
    shut = jnp.isin(jnp.arange(brief.gates.shape[1]), jnp.array(which, jnp.int32))
    return dataclasses.replace(brief, gates=jnp.where(shut[None], 0.0, brief.gates))


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
