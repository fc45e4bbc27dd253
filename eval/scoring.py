"""Streams a split past students and baselines once and fills fidelity's sums."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval import baselines, fidelity
from eval.frames import Batch, Frames
from student_jax import config, irp, layers
from student_jax.student import Student


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a student says of b frames after halting."""

    tokens: np.ndarray  # [b, n, d]
    attention: np.ndarray  # [b, n]
    energy: np.ndarray  # [b]
    taken: np.ndarray  # int [b], steps run


@dataclasses.dataclass(frozen=True)
class Unrolled:
    """The same after each of k - 1 refinement steps, without halting."""

    tokens: np.ndarray  # [b, k, n, d]
    attention: np.ndarray  # [b, k, n]
    energy: np.ndarray  # [b, k]


class Runner:
    """A student, folded as it is shipped, that answers for frames uint8 [n, h, w, 3], `batch` at a time.

    Students of one shape share their programs.
    """

    def __init__(self, student: Student, *, batch: int, seed: int = 0):
        self.student, self.batch = student, batch
        self._key = jax.random.key(seed)
        self._graph, state = nnx.split(student.folded())
        self._state = nnx.to_pure_dict(state)

    def answer(self, image: np.ndarray) -> Answer:
        """The student as it would be used: refined until it halts."""
        return Answer(**self._run(_answer, image))

    def unroll(self, image: np.ndarray) -> Unrolled:
        """Every state that refinement goes through."""
        return Unrolled(**self._run(_unroll, image))

    def _run(self, function: Callable, image: np.ndarray) -> dict[str, np.ndarray]:
        program, parts = _program(function, self._graph), []
        for first in range(0, len(image), self.batch):
            part = image[first : first + self.batch]
            padded = np.resize(part, (self.batch, *part.shape[1:]))
            found = program(self._state, padded[:, None, None], self._key)
            parts.append({name: np.asarray(value)[: len(part)] for name, value in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@functools.cache
def _program(function: Callable, graph: nnx.GraphDef) -> Callable:
    return jax.jit(lambda state, video, key: function(nnx.merge(graph, state), video, key))


def inputs(video: jax.Array) -> irp.Inputs:
    """A student's inputs for frames alone: uint8 [b, t, v, h, w, 3], no state and no text."""
    batch = video.shape[0]
    return irp.Inputs(
        video=video,
        state=jnp.zeros((batch, 1, 1)),
        tokens=jnp.zeros((batch, 1), jnp.int32),
        token_mask=jnp.zeros((batch, 1), bool),
        frame_mask=jnp.ones(video.shape[:3], bool),
    )


def _answer(student: Student, video: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
    plenty = jnp.full(video.shape[0], 1e9)
    said = student(inputs(video), plenty, jnp.ones((video.shape[0], len(student.modules))), key)
    return {
        "tokens": said.features["image_tokens"][:, 0],
        "attention": said.features["vision_attention"][:, 0],
        "energy": said.energies["vision"],
        "taken": said.steps["vision"],
    }


def _unroll(student: Student, video: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
    vision = student.vision
    states = irp.unroll(vision, inputs(video), key, vision.description.max_steps)
    outputs = [vision.output(state) for state in states]
    return {
        "tokens": jnp.stack([output["image_tokens"][:, 0] for output in outputs], axis=1),
        "attention": jnp.stack([output["vision_attention"][:, 0] for output in outputs], axis=1),
        "energy": jnp.stack([state.energy for state in states], axis=1),
    }


def untrained(student: Student, settings: config.StudentConfig, *, seed: int) -> Student:
    """A fresh student of the same size that keeps only the trained one's constants (mean, basis, error scale)."""
    fresh = Student(settings, rngs=nnx.Rngs(seed))
    nnx.update(fresh, nnx.state(student, layers.Statistic))
    return fresh


def unit(student: Student) -> float:
    """The teacher's mean channel variance on the training split: the square of PHI-S' one scalar."""
    basis = np.asarray(student.vision.basis[...], np.float64)
    return float(np.square(basis).sum() / basis.shape[0])


class Tally:
    """Collects one student's answers."""

    def __init__(self, runner: Runner, frames: Frames):
        vision = runner.student.vision
        sizes = (len(frames.tasks), frames.width, unit(runner.student))
        self.runner, self.output = runner, fidelity.Scores(*sizes)
        self.steps = tuple(fidelity.Scores(*sizes) for _ in range(vision.description.max_steps + 1))
        self._energy: list[np.ndarray] = []
        self._step_energy: list[np.ndarray] = []
        self._taken: list[np.ndarray] = []

    def add(self, batch: Batch) -> None:
        """Score one batch."""
        answer, states = self.runner.answer(batch.image), self.runner.unroll(batch.image)
        self._score(self.output, batch, answer.tokens, answer.attention, inside=batch.inside)
        for step, scores in enumerate(self.steps):
            self._score(scores, batch, states.tokens[:, step], states.attention[:, step])
        self._energy.append(answer.energy)
        self._step_energy.append(states.energy)
        self._taken.append(answer.taken)

    def _score(
        self, scores: fidelity.Scores, batch: Batch, tokens: np.ndarray, attention: np.ndarray, inside=None
    ) -> None:
        truth = {"tokens": batch.tokens, "attention": batch.attention, "inside": inside}
        attention = attention.reshape(batch.attention.shape)
        scores.add(batch.task, **truth, predicted=tokens, predicted_attention=attention)

    def student(self) -> fidelity.Student:
        """Everything so far, ready for rows."""
        energy, step_energy, taken = map(np.concatenate, (self._energy, self._step_energy, self._taken))
        median = float(self.runner.student.vision.error_scale[...])
        return fidelity.Student(self.output, self.steps, energy, step_energy, taken, median)


class Reference:
    """Collects one baseline: a function from a batch to tokens and, where it has any, attention."""

    def __init__(self, predict: Callable[[Batch], tuple[np.ndarray, np.ndarray | None]], frames: Frames, unit: float):
        self.predict, self.scores = predict, fidelity.Scores(len(frames.tasks), frames.width, unit)

    def add(self, batch: Batch) -> None:
        """Score one batch."""
        tokens, attention = self.predict(batch)
        if attention is not None:
            attention = attention.reshape(batch.attention.shape)
        self.scores.add(
            batch.task,
            tokens=batch.tokens,
            predicted=tokens,
            attention=batch.attention,
            predicted_attention=attention,
            inside=batch.inside,
        )


def position_mean(train: Frames) -> Callable[[Batch], tuple[np.ndarray, np.ndarray]]:
    """The baseline that has only learned where it looks."""
    mean = baselines.PositionMean()
    for batch in train:
        mean.add(batch.tokens, batch.attention)
    return lambda batch: mean.predict(len(batch.task))


def ridge(train: Frames, validation: Frames) -> Callable[[Batch], tuple[np.ndarray, None]]:
    """The baseline that is linear in a token's own pixels."""
    fitted = baselines.fit_ridge(
        train.layout, *(lambda s=s: ((b.image, b.tokens) for b in s) for s in (train, validation))
    )
    return lambda batch: (fitted.predict(batch.image), None)


def blind(runner: Runner) -> Callable[[Batch], tuple[np.ndarray, np.ndarray]]:
    """A runner as a baseline (the untrained student)."""

    def predict(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        answer = runner.answer(batch.image)
        return answer.tokens, answer.attention

    return predict


class Ground:
    """Collects the teacher's own sums, over all tokens and over those inside the grid."""

    def __init__(self, frames: Frames):
        self.everywhere, self.inside = (fidelity.Truth(len(frames.tasks), frames.width) for _ in range(2))

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        self.everywhere.add(batch.task, batch.tokens)
        self.inside.add(batch.task, batch.tokens, batch.inside)


def stream(frames: Frames, takers: Sequence[Ground | Tally | Reference], tick: Callable[[int], None]) -> None:
    """Read the split once and let everybody take in each batch; `tick` is told how many frames are done."""
    for batch in frames:
        for taker in takers:
            taker.add(batch)
        tick(len(batch.task))
