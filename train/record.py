"""A run's config.json: everything that decides its numbers, written before the first step and compared on a resume."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
from typing import Any

from bridge import manifest
from student_jax import config as student_config
from student_jax.config import StudentConfig
from train import config, plain

FILE = "config.json"
FREE = ("launch", "cluster", "versions")
"""Fields that a resume may change: none decides a number."""
ROUNDING = ("scale", "devices", "processes")
"""Fields that only decide in which order sums are rounded: `--elastic` lets a resume change these too."""

OBJECTIVE = 2
"""Of students that act: 1 learned demonstrations at drawn x_0 and acted from there, 2 learns and acts at x_0 = 0."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run is."""

    config: config.Config
    student: StudentConfig
    steps: int
    """Training steps, resolved from --steps or --epochs."""
    devices: int
    """Devices the batch is split over; sums are rounded in an order that depends on it."""
    store: str
    """Digest of the store's manifest."""
    teacher: dict[str, Any]
    """Who made the features: id, digest, provenance, licence, layout."""
    versions: dict[str, str]
    objective: int = 1
    """What the losses mean, where that has changed: a run of another is another run."""
    processes: int = 1
    """Processes that the devices belong to."""


def make(
    options: config.Config,
    student: StudentConfig,
    source: manifest.Manifest,
    *,
    steps: int,
    devices: int,
    processes: int = 1,
) -> Record:
    """The record of a run about to start."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return Record(
        config=options,
        student=student,
        steps=steps,
        devices=devices,
        processes=processes,
        store=source.digest,
        teacher=dataclasses.asdict(source.teacher),
        versions={name: importlib.metadata.version(name) for name in packages},
        objective=OBJECTIVE if student.control else 1,
    )


def read(folder: pathlib.Path) -> Record:
    """The record of a run folder; a folder that holds none is a ConfigError."""
    path = folder / FILE
    if not path.is_file():
        raise config.ConfigError(
            f"{path} not found, so {folder} holds no run; train one: python -m train.main --out {folder}"
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        # A student from before its later modules lacks their fields; reading it back fills them in as absent.
        tree["student"] = plain.to_json(student_config.from_dict(tree["student"]))
        return plain.from_json(Record, tree)
    except config.ConfigError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise config.ConfigError(f"{path} is damaged ({error}); start again with another --out") from error


def begin(folder: pathlib.Path, record: Record, *, resume: bool) -> None:
    """Writes config.json for a new run, or checks that a resumed one is the same run; any difference is named.

    An elastic resume may differ in what is ROUNDING; the record stays what the run began as.
    """
    if not resume:
        if (folder / FILE).exists():
            raise config.ConfigError(
                f"{folder} already holds a run; add --resume to go on with it, or use another --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return _write(folder / FILE, record)
    free = FREE + ROUNDING * record.config.cluster.elastic
    old, new = (_deciding(plain.to_json(each), free) for each in (read(folder), record))
    changed = plain.differences(old, new)
    if changed:
        rounding = [line for line in changed if line.removeprefix("config.").split(":")[0].split(".")[0] in ROUNDING]
        hint = ", or --elastic to go on all the same (equal up to rounding)" if rounding == changed else ""
        raise config.ConfigError(
            f"{folder} was started with other settings: {'; '.join(changed)}. Use those{hint}, or another --out"
        )
    return None


def _deciding(tree: dict[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: value for name, value in tree.items() if name not in free}
    return kept | {"config": {name: value for name, value in tree["config"].items() if name not in free}}


def _write(path: pathlib.Path, record: Record) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(plain.to_json(record), indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)
