"""SAGE's cycle on the host: sense, believe, spend, act, and learn from what came of it whom to trust."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from bridge import embodiment as embodiments
from bridge import simulator
from bridge.embodiment import Embodiment
from student_jax import irp
from student_jax.sage import orchestrator, trust
from student_jax.student import Student
from train import actor, witness, words

PLENTY = 1e6
"""ATP that pays for every step."""
VIEW_LOST = 0.5
"""A view trusted less than this is reported to the student as lost."""


@dataclasses.dataclass(frozen=True)
class Will:
    """How an orchestrated student is run."""

    atp: float = PLENTY
    """Budget of a decision."""
    trusts: bool = True
    """Whether outcomes move trust; else it stays at the prior and no view is ever lost."""
    depth: int | None = None
    """Steps that every module takes at most, instead of as many as the H-module says."""
    silence: tuple[str, ...] = ()
    """Modules to do without, to see what each is good for."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decision:
    """What one decision came to, per row."""

    actions: Any  # float32 [b, h, a], normalised
    confidence: Any  # float32 [b]
    saliency: Any  # float32 [b, f, p]
    accounts: Any  # {module: orchestrator.Account}
    embedding: Any  # float32 [b, f, d]
    trust: Any  # float32 [b, m], that it was made with
    views: Any  # bool [b, f], which views were given


Given = dict[str, np.ndarray]
Note = Callable[[simulator.Query, Given, Decision], None]


class Memory:
    """What the host remembers of one episode."""

    def __init__(self, judge: trust.Witness):
        self.witness = judge
        self.modules = trust.Posterior(judge.prior)
        self.views = trust.Posterior(np.full(len(judge.cameras), judge.prior[0]))
        self.last: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None

    def heard(self, actions: np.ndarray, paraphrased: np.ndarray) -> None:
        """Judge the language by what an instruction and its paraphrase come to, both [h, a]."""
        agreed = np.square(actions - paraphrased).mean() <= self.witness.paraphrase
        self.modules.observe(np.array([np.nan, float(agreed), np.nan]))

    def learn(self, embedding: np.ndarray, state: np.ndarray, executed: np.ndarray | None) -> None:
        """After a decision: judge the one before by what is seen now. embedding [v, d]; state [s]; executed [e, a], or
        None where the actions were held back: then they say nothing of the control."""
        if self.last is not None:
            before, past, done = self.last
            states = np.stack([past, state])[None]
            seen = self.witness.seen(before[None], embedding[None], states)[0]
            moved = np.nan if done is None else float(self.witness.moved(states, done[None])[0])
            self.views.observe(seen.astype(np.float64))
            self.modules.observe(np.array([float(seen.all()), np.nan, moved]))
        self.last = (embedding, state, executed)


class SageActor(actor.StudentActor):
    """An orchestrated student as a policy of the simulator, with a memory per episode."""

    def __init__(
        self,
        student: Student,
        lexicon: words.Words,
        body: Embodiment,
        judge: trust.Witness,
        *,
        rows: int,
        will: Will = Will(),
        note: Note | None = None,
    ):
        """judge: by what modules are judged. note: is told of every decision, with what the student was given."""
        super().__init__(student, lexicon, body, rows=rows)
        self.witness, self.will, self.note = judge, will, note
        self.memories: dict[tuple[str, int], Memory] = {}
        self._programs: dict[Will, Callable] = {}

    def __call__(self, query: simulator.Query) -> np.ndarray:
        """As a simulator policy: actions [b, h, a] in physical units."""
        if len(query.seed) > self.rows:
            raise ValueError(f"this actor was made for {self.rows} rows, asked for {len(query.seed)}")
        names = list(zip(query.instruction, np.asarray(query.seed).tolist(), strict=True))
        for name, decision in zip(names, np.asarray(query.decision).tolist(), strict=True):
            if decision == 0 or name not in self.memories:
                self.memories[name] = Memory(self.witness)
        given = self.given(self.see(query), [self.memories[name] for name in names])
        decision = self.answer(given)
        if self.note:
            self.note(query, given, decision)
        if self.will.trusts and (query.decision == 0).any():
            self.listen(query, given, decision)
        held = ~decision.views.any(axis=1)
        for name, row in {name: row for row, name in enumerate(names)}.items():
            executed = None if held[row] else decision.actions[row, : simulator.EXECUTE]
            self.memories[name].learn(decision.embedding[row], given["state"][row, 0], executed)
        return still(embodiments.denormalise_rows(self.body, decision.actions), where=held)

    def listen(self, query: simulator.Query, given: Given, decision: Decision) -> None:
        """At the start of episodes: ask again in other words."""
        said = [witness.paraphrase(text) for text in query.instruction]
        tokens, mask = self.words.encode(said, self.student.config.language.length)
        again = self.answer(given | {"tokens": tokens, "token_mask": mask})
        names = zip(query.instruction, np.asarray(query.seed).tolist(), strict=True)
        for name, row in {name: row for row, name in enumerate(names)}.items():
            if query.decision[row] == 0:
                self.memories[name].heard(decision.actions[row], again.actions[row])

    def given(self, seen: actor.Seen, memories: list[Memory]) -> Given:
        """All that the student is given for a decision: what is seen, budget [b], trust [b, m], which views are not
        lost."""
        believed = np.stack([memory.modules.trust for memory in memories])
        views = np.stack([memory.views.trust >= VIEW_LOST for memory in memories])
        if not self.will.trusts:
            believed = np.broadcast_to(self.witness.prior.astype(np.float32), believed.shape)
            views = np.ones_like(views)
        atp = np.full(len(believed), self.will.atp, np.float32)
        return {**vars(seen), "trust": believed, "frame_mask": views[:, None], "atp": atp}

    def answer(self, given: Given, will: Will | None = None) -> Decision:
        """What the student makes of it."""
        count = len(given["trust"])
        padded = {name: np.resize(value, (self.rows, *value.shape[1:])) for name, value in given.items()}
        said = jax.device_get(self._thinking(dataclasses.replace(will or self.will, atp=PLENTY))(self._state, padded))
        return said if count == self.rows else jax.tree.map(lambda leaf: leaf[:count], said)

    def _thinking(self, will: Will) -> Callable:
        """The program of a will, looked up once: hashing a graph takes as long as a decision."""
        if will not in self._programs:
            self._programs[will] = _program(self._graph, will)
        return self._programs[will]


def still(actions: np.ndarray, *, where: np.ndarray) -> np.ndarray:
    """The simulator's actions [b, h, 4] with a hand that rests where no view is believed (bool [b]): what would rest on
    a starved modality alone is held back. The gripper, the last value, stays as it is told."""
    rest = np.concatenate([np.zeros_like(actions[..., :-1]), actions[..., -1:]], axis=-1)
    return np.where(where[:, None, None], rest, actions)


@functools.cache
def _program(graph: nnx.GraphDef, will: Will) -> Callable:
    def think(state: dict, seen: dict[str, jax.Array]) -> Decision:
        student = nnx.merge(graph, state)
        seen = dict(seen)
        atp, believed = seen.pop("atp"), seen.pop("trust")
        return decision(student, irp.Inputs(**seen), atp, believed, will)

    return jax.jit(think)


def decision(student: Student, given: irp.Inputs, atp: jax.Array, believed: jax.Array, will: Will) -> Decision:
    """What the compiled program computes."""
    found = orchestrator.run(student, given, atp, believed, jax.random.key(0), depth=will.depth, silence=will.silence)
    last = found.states["control"]
    return Decision(
        actions=student.control.output(last)["actions"],
        confidence=student.h_module.confidence(found.brief, last.x["hidden"]),
        saliency=found.brief.saliency,
        accounts=found.accounts,
        embedding=found.embedding,
        trust=believed,
        views=given.frame_mask.reshape(given.frame_mask.shape[0], -1),
    )
