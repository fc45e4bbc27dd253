"""Fits what the host of an orchestrated student judges its modules by, from consecutive decisions of a store."""

import dataclasses
import pathlib

import jax
import numpy as np
from flax import nnx

from bridge import store
from student_jax import irp
from student_jax.sage import trust
from student_jax.student import Student
from train import robot_data, vision, words

FILE = "witness.npz"
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Steps:
    """Consecutive decisions of one split: n pairs."""

    embedding: np.ndarray  # float32 [n, 2, v, d]
    state: np.ndarray  # float32 [n, 2, s]
    executed: np.ndarray  # float32 [n, e, a], between the two


def consecutive(episode: np.ndarray, row: np.ndarray, stride: int) -> np.ndarray:
    """int [n, 2]: positions of an observation and of the one `stride` rows later in the same episode."""
    where = {key: index for index, key in enumerate(zip(episode.tolist(), row.tolist(), strict=True))}
    pairs = [(i, where.get((e, r + stride))) for (e, r), i in where.items()]
    return np.array([pair for pair in pairs if pair[1] is not None], int).reshape(-1, 2)


def embeddings(student: Student, seen: robot_data.Observations) -> np.ndarray:
    """float32 [n, v, d], the mean of each frame's tokens at first sight."""
    graph, state = nnx.split(student.vision)

    @jax.jit
    def embed(state: nnx.State, batch: dict) -> jax.Array:
        module = nnx.merge(graph, state)
        return irp.start(module, vision.inputs(batch), jax.random.key(0)).x.mean(axis=2)

    parts = []
    for first in range(0, len(seen), BATCH):
        positions = np.minimum(np.arange(first, first + BATCH), len(seen) - 1)
        parts.append(np.asarray(embed(state, seen.read(positions))))
    return np.concatenate(parts)[: len(seen)]


def steps(student: Student, reader: store.Reader, split: str, lexicon: words.Words) -> Steps:
    """The pairs of a split of a robot's store."""
    text = lexicon.encode(robot_data.instructions(reader), student.config.language.length)
    seen = robot_data.Observations(reader, split, features=("demonstration",), text=text, cache_bytes=0.0)
    records, stride = reader.records(split), reader.manifest.extraction["stride"]
    episode, row = (np.asarray(reader.manifest.records[name])[records] for name in ("episode", "row"))
    pairs = consecutive(episode, row, stride)
    everything = np.arange(len(seen))
    state, shown = seen.fetch("state", everything), seen.fetch("demonstration", everything)
    return Steps(embeddings(student, seen)[pairs], state[pairs], shown[pairs[:, 0], :stride])


def fit(train: Steps, validation: Steps, *, paraphrase: float, agreed: float) -> trust.Witness:
    """From both splits. paraphrase, agreed: the limit of disagreement and the share of validation within it."""
    views = range(train.embedding.shape[2])
    cameras = tuple(trust.fit(_ahead(train, v), _ahead(validation, v)) for v in views)
    usual = tuple(trust.fit(_here(train, v), _here(validation, v)) for v in views)
    body = trust.fit(_body(train), _body(validation))
    made = trust.Witness(cameras, usual, body, paraphrase, np.ones(3))
    seen = made.seen(validation.embedding[:, 0], validation.embedding[:, 1], validation.state).all(axis=1).mean()
    moved = made.moved(validation.state, validation.executed).mean()
    return dataclasses.replace(made, prior=np.array([seen, agreed, moved]))


def _ahead(found: Steps, view: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([found.embedding[:, 0, view], found.state.reshape(len(found.state), -1)], axis=1)
    return x, found.embedding[:, 1, view]


def _here(found: Steps, view: int) -> tuple[np.ndarray, np.ndarray]:
    return found.state[:, 1], found.embedding[:, 1, view]


def _body(found: Steps) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([found.state[:, 0], found.executed.reshape(len(found.executed), -1)], axis=1)
    return x, found.state[:, 1] - found.state[:, 0]


def save(witness: trust.Witness, folder: pathlib.Path) -> None:
    """Beside the weights, as plain arrays."""
    arrays = {"paraphrase": np.float64(witness.paraphrase), "prior": witness.prior}
    for name, part in (("body", witness.body), *_numbered(witness)):
        arrays |= {f"{name}/{field.name}": getattr(part, field.name) for field in dataclasses.fields(part)}
    np.savez(folder / FILE, **arrays)


def load(folder: pathlib.Path) -> trust.Witness:
    """What `save` wrote."""
    with np.load(folder / FILE) as stored:
        views = sum(name.startswith("usual") and name.endswith("limit") for name in stored)

        def part(name: str) -> trust.Linear:
            return trust.Linear(
                *(stored[f"{name}/{field}"] for field in ("weights", "scale")), float(stored[f"{name}/limit"])
            )

        cameras, usual = (tuple(part(f"{kind}{v}") for v in range(views)) for kind in ("camera", "usual"))
        return trust.Witness(cameras, usual, part("body"), float(stored["paraphrase"]), stored["prior"])


def _numbered(witness: trust.Witness) -> list[tuple[str, trust.Linear]]:
    kinds = (("camera", witness.cameras), ("usual", witness.usual))
    return [(f"{kind}{view}", part) for kind, parts in kinds for view, part in enumerate(parts)]
