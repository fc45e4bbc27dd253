"""An orchestrated student against the store: quality at budgets and fixed depths, saliency, confidence."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval.observations import BATCH, Batch, Observations
from student_jax import irp
from student_jax.sage import budget, orchestrator
from student_jax.sage.h_module import USUAL_TRUST
from student_jax.student import Student
from train import words

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Budgets, of what all steps cost."""


@dataclasses.dataclass(frozen=True)
class Spent:
    """One way to spend, over all observations."""

    atp: np.ndarray  # [n]
    error: np.ndarray  # [n], mean squared distance to the teacher's actions at the same x_0


@dataclasses.dataclass(frozen=True)
class Economy:
    """What was found; `episode` int [n] says which observations belong together."""

    episode: np.ndarray
    full: float
    """ATP of all steps."""
    budgets: dict[float, Spent]
    """By share of `full`, with the H-module's plan."""
    depths: dict[int, Spent]
    """By steps of every module, without a plan."""
    saliency: np.ndarray  # [n, f, k]
    teacher_saliency: np.ndarray  # [n, f, k]
    confidence: np.ndarray  # [n]
    teacher_confidence: np.ndarray  # [n]


def measure(student: Student, lexicon: words.Words, seen: Observations, tick: Callable[[int], None]) -> Economy:
    """Read the split past a student in every way."""
    spender, length = Spender(student), student.config.language.length
    spender.price(next(seen.batches(lexicon, length)))
    found: dict[float, list] = {share: [] for share in SHARES}
    for batch in seen.batches(lexicon, length):
        for share, each in found.items():
            each.append(spender(batch, atp=share * spender.full, depth=None))
        tick(len(batch.episode))
    joined = {share: [np.concatenate(part) for part in zip(*each, strict=True)] for share, each in found.items()}
    told, sure = joined[1.0][2:4]
    return Economy(
        episode=seen.episode,
        full=spender.full,
        budgets={share: Spent(*parts[:2]) for share, parts in joined.items()},
        depths=depths(student, lexicon, seen),
        saliency=told,
        teacher_saliency=teacher_saliency(seen),
        confidence=sure,
        teacher_confidence=seen.reader.take("confidence", seen.records).astype(np.float64),
    )


def prices(student: Student, batch: Batch) -> dict[str, float]:
    """ATP of a step of each module for observations of this shape."""
    spender = Spender(student)
    spender.price(batch)
    return {name: price.step_atp for name, price in spender.table.items()}


def glance(student: Student, lexicon: words.Words, seen: Observations) -> np.ndarray:
    """The saliency alone, [n, f, k]."""
    spender = Spender(student)
    return np.concatenate([
        spender(batch, atp=0.0, depth=None)[2] for batch in seen.batches(lexicon, student.config.language.length)
    ])  # fmt: skip


def depths(student: Student, lexicon: words.Words, seen: Observations) -> dict[int, Spent]:
    """What every fixed depth costs and comes to, of a student with or without an H-module."""
    spender, found = Spender(student), {}
    length = student.config.language.length
    spender.price(next(seen.batches(lexicon, length)))
    for depth in range(max(spender.steps.values()) + 1):
        parts = [spender(batch, atp=spender.cost(depth), depth=depth)[:2] for batch in seen.batches(lexicon, length)]
        found[depth] = Spent(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return found


def mixed(found: dict[int, Spent], atp: float) -> np.ndarray:
    """Error [n] of drawing between the two fixed depths that `atp` lies between, so that it is spent on average: what
    equal compute buys without a plan. Outside the depths' range, the nearest."""
    ordered = sorted(found.values(), key=lambda one: one.atp.mean())
    costs = np.array([one.atp.mean() for one in ordered])
    place = float(np.interp(atp, costs, np.arange(len(costs))))
    low = min(int(place), len(ordered) - 2)
    share = place - low
    return (1 - share) * ordered[low].error + share * ordered[low + 1].error


def teacher_saliency(seen: Observations) -> np.ndarray:
    """Float64 [n, f, k], sum 1 over a record's frames."""
    found = seen.reader.take("saliency", seen.records).astype(np.float64)
    found = found.reshape(len(seen), len(seen.views), -1)
    return found / found.sum(axis=(1, 2), keepdims=True)


class Spender:
    """A student at any budget, one compiled program with the H-module's plan and one for any fixed depth."""

    def __init__(self, student: Student):
        self.student = student.folded()
        self.limits = tuple(np.asarray(part[...]) for part in (student.control.low, student.control.high))
        self._graph, state = nnx.split(self.student)
        self._state = nnx.to_pure_dict(state)
        self.steps = {name: module.description.max_steps for name, module in student.modules.items()}
        self.table: dict = {}
        self.full = 0.0

    def price(self, batch: Batch) -> None:
        """Learn what steps cost for observations of this shape."""
        inputs = irp.Inputs(
            batch.inputs["video"], batch.inputs["state"], batch.inputs["tokens"], batch.inputs["token_mask"], None
        )
        self.table = self.student.table(inputs)
        self.full = budget.full(self.table, self.steps)

    def cost(self, depth: int) -> float:
        """ATP of so many steps of every module."""
        return sum(self.table[name].step_atp * min(depth, most) for name, most in self.steps.items())

    def __call__(
        self, batch: Batch, *, atp: float | np.ndarray, depth: int | None, trust: float | np.ndarray = USUAL_TRUST
    ) -> tuple[np.ndarray, ...]:
        """(ATP spent [b], error [b], saliency [b, f, k], confidence [b], steps [b, m]) for the first x_0 of every
        observation; without an H-module saliency and confidence are zero. trust: of every module, or [b, m]."""
        count = len(batch.episode)
        given = batch.inputs | {"noise": batch.inputs["noise"][:, 0], "atp": np.full(count, atp, np.float32)}
        given["trust"] = np.broadcast_to(np.float32(trust), (count, len(self.steps)))
        padded = {name: np.resize(value, (BATCH, *value.shape[1:])) for name, value in given.items()}
        program = _program(self._graph, depth is None)
        said = [np.asarray(part)[:count] for part in program(self._state, padded, np.int32(depth or 0))]
        error = np.square(said[0] - np.clip(batch.actions[:, 0], *self.limits)).mean(axis=(1, 2))
        return said[1].astype(np.float64), error.astype(np.float64), *said[2:]


@functools.cache
def _program(graph: nnx.GraphDef, planned: bool) -> Callable:
    @jax.jit
    def act(state: dict, given: dict[str, jax.Array], fixed: jax.Array) -> tuple[jax.Array, ...]:
        student, given = nnx.merge(graph, state), dict(given)
        atp, trusted = given.pop("atp"), given.pop("trust")
        inputs = irp.Inputs(**given, frame_mask=jnp.ones(given["video"].shape[:3], bool))
        depth = None if planned else fixed
        found = orchestrator.run(student, inputs, atp, trusted, jax.random.key(0), depth=depth)
        last = found.states["control"]
        told, sure = jnp.zeros((atp.shape[0], 1, 1)), jnp.zeros(atp.shape[0])
        if found.brief is not None:
            told = student.h_module.told(found.brief, student.config.target)
            sure = student.h_module.confidence(found.brief, last.x["hidden"])
        spent = sum(account.spent for account in found.accounts.values())
        steps = jnp.stack([account.steps for account in found.accounts.values()], axis=1)
        return student.control.output(last)["actions"], spent, told, sure, steps

    return act


def compared(metric: Callable, told: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """A comparison of saliency maps (train.orchestra, train.orchestra_scores) of host arrays [n, f, k], float64 [n]; a
    map of one row stands for all."""
    both = (jnp.asarray(each, jnp.float32) for each in np.broadcast_arrays(told, teacher))
    return np.asarray(metric(*both), np.float64)


def centre(frames: int, tokens: int) -> np.ndarray:
    """A prior that looks at the middle of every view, [1, f, k]."""
    side = round(tokens**0.5)
    away = np.square((np.arange(side) + 0.5) / side - 0.5)
    one = np.exp(-(away[:, None] + away[None]) / (2 * 0.2**2)).reshape(-1)
    return np.tile(one / one.sum() / frames, (1, frames, 1))


def correlation(told: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Pearson's over a record's image tokens, [n]."""
    x, y = (each.reshape(len(each), -1) - each.reshape(len(each), -1).mean(axis=1, keepdims=True)
            for each in np.broadcast_arrays(told, teacher))  # fmt: skip
    return (x * y).sum(axis=1) / np.maximum(np.sqrt(np.square(x).sum(axis=1) * np.square(y).sum(axis=1)), 1e-12)


def violations(student: Student, batch: Batch, *, count: int, seed: int) -> int:
    """Of so many random budgets, odd ones and exact prices among them, each with random trust, how many were overdrawn,
    in exact arithmetic."""
    spender, rng, broken = Spender(student), np.random.default_rng(seed), 0
    spender.price(batch)
    prices = np.array([spender.table[name].step_atp for name in spender.steps])
    for first in range(0, count, len(batch.episode)):
        rows = min(len(batch.episode), count - first)
        trust = rng.uniform(size=(len(batch.episode), len(prices))) ** 2
        atp = drawn(spender, prices, rng, len(batch.episode))
        steps = spender(batch, atp=atp, depth=None, trust=trust)[4]
        allowed = np.nan_to_num(atp.astype(np.float64), nan=0.0, posinf=np.inf).clip(0)
        broken += int((steps.astype(np.float64) @ prices > allowed)[:rows].sum())
    return broken


def drawn(spender: Spender, prices: np.ndarray, rng: np.random.Generator, rows: int) -> np.ndarray:
    """Budgets float32 [rows]: half random up to 1.3 of everything, a third exactly what some choice of steps costs or
    a little less, the others odd."""
    atp = 1.3 * spender.full * rng.uniform(size=rows) ** 2
    most = np.array(list(spender.steps.values()))
    exact = rng.integers(0, most + 1, size=(rows, len(most))) @ prices
    less = np.nextafter(exact.astype(np.float32), np.float32(0))
    kind = rng.integers(0, 6, size=rows)
    atp = np.where(kind == 2, exact, np.where(kind == 3, less, atp))
    return np.where(kind == 4, rng.choice([np.nan, -1.0, np.inf, 0.0], size=rows), atp).astype(np.float32)
