"""How close a student's actions and tokens are to its teacher's: sums per episode, from which every metric follows."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval import statistics
from eval.observations import BATCH, Batch, Observations
from eval.places import Places
from student_jax import irp
from student_jax.student import Student
from train import robot, words


class Moments:
    """Squared errors of k predictions and the spread of their target, per unit: float64 [u, k], [u, c], [u]."""

    def __init__(self, units: int, predictions: int, channels: int, *, per_channel: bool = False):
        self.sse = np.zeros((units, predictions, channels) if per_channel else (units, predictions))
        self.total, self.square = np.zeros((units, channels)), np.zeros((units, channels))
        self.count = np.zeros(units)

    def add(self, unit: np.ndarray, target: np.ndarray, predicted: np.ndarray) -> None:
        """target [b, ..., c], predicted [k, b, ..., c]; unit int [b]."""
        axes, target = tuple(range(1, target.ndim - 1)), target.astype(np.float64)
        error = np.square(predicted - target[None]).sum(axis=tuple(axis + 1 for axis in axes))
        error = error if self.sse.ndim == 3 else error.sum(axis=-1)
        np.add.at(self.sse, unit, np.moveaxis(error, 0, 1))
        np.add.at(self.total, unit, target.sum(axis=axes))
        np.add.at(self.square, unit, np.square(target).sum(axis=axes))
        np.add.at(self.count, unit, np.prod([target.shape[axis] for axis in axes]))

    def mse(self, weights: np.ndarray) -> np.ndarray:
        """Mean squared error per prediction: [draws, k]."""
        return weights @ self.sse / (weights @ self.count * self.total.shape[1])[:, None]

    def r2(self, weights: np.ndarray) -> np.ndarray:
        """1 - SSE / SST over all channels together, SST about each channel's mean: [draws, k]."""
        spread = weights @ self.square - np.square(weights @ self.total) / (weights @ self.count)[:, None]
        return 1 - weights @ self.sse / np.maximum(spread.sum(axis=-1), 1e-12)[:, None]

    def channels(self, weights: np.ndarray) -> np.ndarray:
        """R² of the last prediction per channel: [draws, c]; only where errors are kept per channel."""
        sums = weights @ self.sse[:, -1], weights @ self.total, weights @ self.square
        return statistics.r_squared(*sums, weights @ self.count)


@dataclasses.dataclass(frozen=True)
class Scores:
    """One student on one split. Predictions of actions are after 0, 1, ... steps of the control, vision and language
    having run all of theirs; targets lie within the robot's limits."""

    actions: Moments
    """To the teacher's at the same x_0."""
    raw: Moments
    """To the teacher's as it said them, beyond the robot's limits or not."""
    residual: Moments
    """Of what depends on x_0: the difference to the mean over draws."""
    shown: Moments
    """Of what it does itself, from x_0 = 0, to the demonstrated actions."""
    own: Moments
    """Of the same, to the mean over the teacher's draws."""
    shuffled: Moments
    """To the teacher's, with the images of another episode of the same task."""
    shown_shuffled: Moments
    """To the demonstrated ones, with such images."""
    image: Moments
    fused: Moments
    floor: np.ndarray
    """float64 [u], half the teacher's squared distance to itself over two x_0, summed over values."""
    values: np.ndarray
    """float64 [u], how many values that is a sum of."""
    places: Places | None = None
    """Where the student says that the objects are, if both it and the store tell."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All sums by name, from which anyone can score again."""
        flat = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: value for name, value in flat.items() if isinstance(value, np.ndarray)}
        parts = {name: value for name, value in flat.items() if isinstance(value, Moments)}
        plain |= self.places.arrays() if self.places else {}
        return plain | {f"{name}_{part}": array for name, sums in parts.items() for part, array in vars(sums).items()}

    def noise_floor(self, weights: np.ndarray) -> np.ndarray:
        """Mean over values, [draws]."""
        return weights @ self.floor / (weights @ self.values)


def score(student: Student, lexicon: words.Words, seen: Observations, tick: Callable[[int], None]) -> Scores:
    """Read the split past a student, then once more with its images shuffled."""
    units, actions, length = len(seen.episodes), student.config.actions, student.config.language.length
    width, steps = student.config.target.width, student.control.description.max_steps + 1
    names = ("actions", "raw", "residual", "shown", "own", "shuffled", "shown_shuffled")
    made = {name: Moments(units, steps, actions.width) for name in names}
    made |= {name: Moments(units, 1, width, per_channel=True) for name in ("image", "fused")}
    found = Scores(**made, floor=np.zeros(units), values=np.zeros(units))
    runner, told = _Runner(student), []
    for batch in seen.batches(lexicon, length):
        answer = runner(batch)
        _add(found, batch, answer, runner.limits)
        told.append(answer.get("objects"))
        tick(len(batch.episode))
    for batch in seen.batches(lexicon, length, shuffled=True):
        answer, (teacher, shown) = runner(batch), _targets(batch, runner.limits)
        found.shuffled.add(batch.episode, teacher, answer["actions"])
        found.shown_shuffled.add(batch.episode, shown, answer["own"])
        tick(len(batch.episode))
    return dataclasses.replace(found, places=_places(seen, told))


def _places(seen: Observations, told: Sequence[np.ndarray | None]) -> Places | None:
    truth = seen.places()
    if truth is None or told[0] is None:
        return None
    said = np.concatenate(told)
    return Places(said, truth, seen.episode, seen.size) if said.shape == truth.shape else None


def _targets(batch: Batch, limits: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's actions [b, n, h, a] and the demonstrated ones [b, h, a] within the limits."""
    return np.clip(batch.actions, *limits), np.clip(batch.demonstration, *limits)


def _add(found: Scores, batch: Batch, answer: dict[str, np.ndarray], limits: tuple) -> None:
    said, (teacher, shown) = answer["actions"], _targets(batch, limits)
    found.actions.add(batch.episode, teacher, said)
    found.raw.add(batch.episode, batch.actions, said)
    found.shown.add(batch.episode, shown, answer["own"])
    found.own.add(batch.episode, teacher.mean(axis=1), answer["own"])
    residual = teacher - teacher.mean(axis=1, keepdims=True)
    found.residual.add(batch.episode, residual, said - said.mean(axis=2, keepdims=True))
    found.image.add(batch.episode, batch.image_tokens, answer["image_tokens"][None])
    found.fused.add(batch.episode, batch.fused_tokens, answer["fused_tokens"][None])
    spread = teacher.astype(np.float64).var(axis=1, ddof=1)
    np.add.at(found.floor, batch.episode, spread.sum(axis=(1, 2)))
    np.add.at(found.values, batch.episode, spread[0].size)


class _Runner:
    """The student's answers to a batch, in one compiled program."""

    def __init__(self, student: Student):
        self.limits = tuple(np.asarray(part[...]) for part in (student.control.low, student.control.high))
        self._graph, state = nnx.split(student.folded())
        self._state = nnx.to_pure_dict(state)

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        count = len(batch.episode)
        padded = {name: np.resize(value, (BATCH, *value.shape[1:])) for name, value in batch.inputs.items()}
        said = _program(self._graph)(self._state, padded)
        found = {name: np.asarray(value)[:count] for name, value in said.items()}
        return found | {"actions": np.moveaxis(found["actions"], 2, 0), "own": np.moveaxis(found["own"], 1, 0)}


@functools.cache
def _program(graph: nnx.GraphDef) -> Callable:
    return jax.jit(lambda state, given: answers(nnx.merge(graph, state), given))


def answers(student: Student, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """actions [b, n, k, h, a] after k steps for every noise, own [b, k, h, a] from x_0 = 0; image_tokens and
    fused_tokens [b, v, t, c] and, where the student tells, objects [b, v, o, 2] after all."""
    noise = robot.started(given["noise"])
    b, n = noise.shape[:2]
    mask = jnp.ones(given["video"].shape[:3], bool)
    inputs = irp.Inputs(**{**given, "noise": None}, frame_mask=mask)
    last = {}
    for name in ("vision", "language"):
        module = student.modules[name]
        last[name] = irp.unroll(module, inputs, jax.random.key(0), module.description.max_steps)[-1]
        inputs = dataclasses.replace(inputs, context=inputs.context | {name: module.context(last[name])})
    context, state = jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), (inputs.context, inputs.state))
    inputs = dataclasses.replace(inputs, context=context, state=state, noise=noise.reshape(b * n, *noise.shape[2:]))
    control = student.control
    states = irp.unroll(control, inputs, jax.random.key(0), control.description.max_steps)
    said = jnp.stack([control.output(one)["actions"] for one in states], axis=1)
    said = said.reshape(b, n, *said.shape[1:])
    seen = student.vision.output(last["vision"])
    return {
        **({"objects": seen["objects"][..., :2]} if "objects" in seen else {}),
        "actions": said[:, :-1],
        "own": said[:, -1],
        "image_tokens": seen["image_tokens"],
        "fused_tokens": student.language.output(last["language"])["adapted_features"],
    }
