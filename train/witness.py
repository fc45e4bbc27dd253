"""Fits what the host of an orchestrated student judges its modules by, from consecutive decisions of a store."""

import dataclasses
import hashlib
import os
import pathlib
import zipfile

import jax
import numpy as np
from flax import nnx

from bridge import store
from student_jax import irp
from student_jax.sage import trust
from student_jax.student import Student
from train import robot, robot_data, vision, words

FILE = "witness.npz"
BATCH, MOST = 64, 512


class WitnessError(ValueError):
    """What lies beside a student cannot be read; the message says how to make it again."""


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
    state = nnx.to_pure_dict(state)

    @jax.jit
    def embed(state: dict, batch: dict) -> jax.Array:
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


def make(student: Student, reader: store.Reader, lexicon: words.Words) -> trust.Witness:
    """From a robot's store: what is usual from the training split, what is still acceptable from validation."""
    parts = [steps(student, reader, split, lexicon) for split in ("train", "validation")]
    apart = disagreement(student, reader, lexicon)
    limit = float(np.quantile(apart, 0.95))
    return fit(*parts, paraphrase=limit, agreed=float((apart <= limit).mean()))


def paraphrase(instruction: str) -> str:
    """The same request in other words: without its articles, or where it has none, asked politely."""
    short = " ".join(word for word in instruction.split() if word.lower() not in ("the", "a", "an"))
    return short if short != instruction else f"please {instruction}"


def disagreement(student: Student, reader: store.Reader, lexicon: words.Words) -> np.ndarray:
    """Mean squared distance [n] between the actions for an instruction and for its paraphrase, on validation."""
    length, said = student.config.language.length, robot_data.instructions(reader)
    both = [lexicon.encode(texts, length) for texts in (said, [paraphrase(text) for text in said])]
    sources = [
        robot_data.Observations(reader, "validation", features=("noise",), text=text, cache_bytes=0.0) for text in both
    ]
    graph, state = nnx.split(student)
    state = nnx.to_pure_dict(state)

    @jax.jit
    def act(state: dict, batch: dict) -> jax.Array:
        first = batch | {"noise": batch["noise"][:, :1]}
        found = robot.unroll(nnx.merge(graph, state), first, jax.random.key(0), until="control")
        return found.states["control"][-1].x["actions"][1::2]  # from x_0 = 0, where it acts

    positions = np.linspace(0, len(sources[0]) - 1, min(len(sources[0]), MOST)).astype(int)
    apart = []
    for first in range(0, len(positions), BATCH):
        chosen = np.resize(positions[first : first + BATCH], BATCH)
        one, other = (np.asarray(act(state, source.read(chosen))) for source in sources)
        apart.append(np.square(one - other).mean(axis=(1, 2)))
    return np.concatenate(apart)[: len(positions)]


def fit(train: Steps, validation: Steps, *, paraphrase: float, agreed: float) -> trust.Witness:
    """From both splits. paraphrase, agreed: the limit of disagreement and the share of validation within it."""
    views = range(train.embedding.shape[2])
    cameras = tuple(trust.fit(_ahead(train, v), _ahead(validation, v)) for v in views)
    usual = tuple(trust.fit(_here(train, v), _here(validation, v)) for v in views)
    body = trust.fit(_body(train), _body(validation))
    made = trust.Witness(cameras, usual, body, paraphrase, np.ones(3))
    strange = made.strangeness(validation.embedding[:, 0], validation.embedding[:, 1], validation.state).max(axis=1)
    margin = float(np.quantile(strange, 0.95))
    moved = made.moved(validation.state, validation.executed).mean()
    return dataclasses.replace(made, margin=margin, prior=np.array([(strange <= margin).mean(), agreed, moved]))


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
    arrays = {name: np.asarray(getattr(witness, name)) for name in ("paraphrase", "prior", "margin")}
    for name, part in (("body", witness.body), *_numbered(witness)):
        arrays |= {f"{name}/{field.name}": getattr(part, field.name) for field in dataclasses.fields(part)}
    with (folder / f"{FILE}.part").open("wb") as file:
        np.savez(file, **arrays)
    os.replace(folder / f"{FILE}.part", folder / FILE)


def digest(judge: trust.Witness) -> str:
    """sha256 of all its numbers."""
    found = hashlib.sha256(judge.prior.tobytes() + repr((judge.paraphrase, judge.margin)).encode())
    for _, part in (("body", judge.body), *_numbered(judge)):
        found.update(part.weights.tobytes() + part.scale.tobytes() + repr(part.limit).encode())
    return found.hexdigest()


def load(folder: pathlib.Path) -> trust.Witness:
    """What `save` wrote; WitnessError where it is incomplete or of an earlier version."""
    try:
        return _load(folder)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise WitnessError(
            f"{folder / FILE} cannot be read ({error}): it is incomplete or of an earlier version; repeat the run's "
            "training command with --resume, which makes it again"
        ) from error


def _load(folder: pathlib.Path) -> trust.Witness:
    with (folder / FILE).open("rb") as file, np.load(file) as stored:  # numpy leaves a damaged file open
        views = sum(name.startswith("usual") and name.endswith("limit") for name in stored)

        def part(name: str) -> trust.Linear:
            return trust.Linear(
                *(stored[f"{name}/{field}"] for field in ("weights", "scale")), float(stored[f"{name}/limit"])
            )

        cameras, usual = (tuple(part(f"{kind}{v}") for v in range(views)) for kind in ("camera", "usual"))
        apart, margin = (float(stored[name]) for name in ("paraphrase", "margin"))
        return trust.Witness(cameras, usual, part("body"), apart, stored["prior"], margin)


def _numbered(witness: trust.Witness) -> list[tuple[str, trust.Linear]]:
    kinds = (("camera", witness.cameras), ("usual", witness.usual))
    return [(f"{kind}{view}", part) for kind, parts in kinds for view, part in enumerate(parts)]
