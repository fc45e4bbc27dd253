"""Streams a split past students and baselines once and fills fidelity's sums."""

import dataclasses
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
    """What a student says of b frames: its output after halting, and every refinement step k without halting."""

    tokens: np.ndarray  # [b, n, d]
    attention: np.ndarray  # [b, n]
    energy: np.ndarray  # [b]
    taken: np.ndarray  # int [b]
    step_tokens: np.ndarray  # [k, b, n, d]
    step_attention: np.ndarray  # [k, b, n]
    step_energy: np.ndarray  # [k, b]


class Runner:
    """A student that answers for frames uint8 [b, h, w, 3], b at most `batch`, compiled once."""

    def __init__(self, student: Student, *, batch: int, seed: int = 0):
        self.student, self.batch = student, batch
        self._key = jax.random.key(seed)
        graph, state = nnx.split(student)
        self._state = nnx.to_pure_dict(state)
        self._answer = jax.jit(lambda state, video, key: _answer(nnx.merge(graph, state), video, key))

    def __call__(self, image: np.ndarray) -> Answer:
        padded = np.resize(image, (self.batch, *image.shape[1:]))
        found = self._answer(self._state, padded[:, None, None], self._key)
        return Answer(
            **{
                name: np.asarray(value)[:, : len(image)]
                if name.startswith("step_")
                else np.asarray(value)[: len(image)]
                for name, value in found.items()
            }
        )


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
    seen, vision = inputs(video), student.vision
    plenty = jnp.full(video.shape[0], 1e9)
    said = student(seen, plenty, jnp.ones((video.shape[0], len(student.modules))), key)
    states = irp.unroll(vision, seen, key, vision.description.max_steps)
    outputs = [vision.output(state) for state in states]
    return {
        "tokens": said.features["image_tokens"][:, 0],
        "attention": said.features["vision_attention"][:, 0],
        "energy": said.energies["vision"],
        "taken": said.steps["vision"],
        "step_tokens": jnp.stack([output["image_tokens"][:, 0] for output in outputs]),
        "step_attention": jnp.stack([output["vision_attention"][:, 0] for output in outputs]),
        "step_energy": jnp.stack([state.energy for state in states]),
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
        answer, truth = self.runner(batch.image), {"tokens": batch.tokens, "attention": batch.attention}
        for scores, tokens, attention in (
            (self.output, answer.tokens, answer.attention),
            *zip(self.steps, answer.step_tokens, answer.step_attention, strict=True),
        ):
            attention = attention.reshape(batch.attention.shape)
            scores.add(batch.task, **truth, predicted=tokens, predicted_attention=attention)
        self._energy.append(answer.energy)
        self._step_energy.append(answer.step_energy.T)
        self._taken.append(answer.taken)

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
        answer = runner(batch.image)
        return answer.tokens, answer.attention

    return predict


def stream(
    frames: Frames, truth: fidelity.Truth, takers: Sequence[Tally | Reference], tick: Callable[[int], None]
) -> None:
    """Read the split once and let everybody score each batch; `tick` is told how many frames are done."""
    for batch in frames:
        truth.add(batch.task, batch.tokens)
        for taker in takers:
            taker.add(batch)
        tick(len(batch.task))
