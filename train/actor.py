"""A student as a policy of the simulator: frames, state and instruction in, a chunk of actions out."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bridge import embodiment as embodiments
from bridge import simulator
from bridge.embodiment import Embodiment
from student_jax import irp
from student_jax.student import Student
from train import words


@dataclasses.dataclass(frozen=True)
class Seen:
    """What of a query reaches a student, and the noise that its actions start from."""

    video: np.ndarray  # uint8 [b, 1, v, h, w, 3]
    state: np.ndarray  # float32 [b, 1, d], normalised
    tokens: np.ndarray  # int32 [b, l]
    token_mask: np.ndarray  # bool [b, l]
    noise: np.ndarray  # float32 [b, h, a]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How a student is run: how long it thinks, and where its actions start."""

    steps: int | None = None
    """Refinement steps of every module at most; None is all, as in training."""
    halting: bool = False
    """Whether it stops by its own energy and takes the state of the least, as `Student` does."""
    drawn: bool = False
    """Whether its actions start from a drawn x_0, as the teacher's do; else from 0, where it does what it was shown."""


class StudentActor:
    """A student with its tokenizer and embodiment. A row's answer depends on that row alone; x_0 is 0, or drawn from
    the episode's seed and the number of the decision."""

    def __init__(
        self,
        student: Student,
        lexicon: words.Words,
        body: Embodiment,
        *,
        rows: int,
        effort: Effort = Effort(),
    ):
        """rows: of the one compiled program."""
        self.student, self.words, self.body, self.rows, self.effort = student, lexicon, body, rows, effort
        self._graph, state = nnx.split(student.folded())
        self._state = nnx.to_pure_dict(state)

    @functools.cached_property
    def _cameras(self) -> list[int]:
        """Of the simulator, in the order of the embodiment's views; EmbodimentError where it is another robot's."""
        return simulator.cameras(self.body)

    def see(self, query: simulator.Query) -> Seen:
        """The student's inputs."""
        tokens, mask = self.words.encode(query.instruction, self.student.config.language.length)
        actions = self.student.config.actions
        chunk = (actions.horizon, actions.width)
        drawn = self.effort.drawn
        return Seen(
            query.frames[:, None, self._cameras],
            embodiments.normalise_rows(self.body, query.state)[:, None],
            tokens,
            mask,
            draw(query.seed, query.decision, chunk) if drawn else np.zeros((len(query.seed), *chunk), "f4"),
        )

    def chunks(self, seen: Seen) -> np.ndarray:
        """Normalised actions float32 [b, h, a]."""
        given = {name: np.resize(value, (self.rows, *value.shape[1:])) for name, value in vars(seen).items()}
        return np.asarray(self._program(self._state, given))[: len(seen.video)]

    @functools.cached_property
    def _program(self) -> Callable:
        """Looked up once: hashing a graph takes as long as a decision."""
        return _program(self._graph, self.effort)

    def __call__(self, query: simulator.Query) -> np.ndarray:
        """As a simulator policy: actions [b, h, 4] in physical units."""
        if len(query.seed) > self.rows:
            raise ValueError(f"this actor was made for {self.rows} rows, asked for {len(query.seed)}")
        return embodiments.denormalise_rows(self.body, self.chunks(self.see(query)))


def draw(seed: np.ndarray, decision: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """x_0 float32 [b, h, a], row by row."""
    rows = zip(np.asarray(seed).tolist(), np.asarray(decision).tolist(), strict=True)
    return np.stack([np.random.default_rng([one, asked, 3]).normal(size=shape) for one, asked in rows]).astype("f4")


def refined(student: Student, given: irp.Inputs, effort: Effort) -> dict[str, irp.State]:
    """The state that each module comes to."""
    found = {}
    for name, module in student.modules.items():
        found[name] = _state(module, given, effort, student.config.halt)
        if isinstance(module, irp.Source):
            given = dataclasses.replace(given, context=given.context | {name: module.context(found[name])})
    return found


def _state(module: irp.Irp, given: irp.Inputs, effort: Effort, halt: irp.Halt) -> irp.State:
    most, key = module.description.max_steps, jax.random.key(0)  # no module draws from it: x_0 is given
    steps = most if effort.steps is None else min(effort.steps, most)
    if not effort.halting:
        return irp.unroll(module, given, key, steps)[-1]
    budget = jnp.full(given.video.shape[0], steps, jnp.int32)
    return irp.refine(module, given, key, budget, halt)[0]


@functools.cache
def _program(graph: nnx.GraphDef, effort: Effort) -> Callable:
    def act(state: dict, seen: dict[str, jax.Array]) -> jax.Array:
        student = nnx.merge(graph, state)
        given = irp.Inputs(**seen, frame_mask=jnp.ones(seen["video"].shape[:3], bool))
        last = refined(student, given, effort)["control"]
        return student.control.output(last)["actions"]

    return jax.jit(act)
