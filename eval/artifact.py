"""An artifact folder: what its meta.json says, and how it is written so that a half written one never loads."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from bridge.embodiment import Embodiment
from eval import card, policy, products, variants
from eval.variants import Weights
from student_jax import cost, irp
from student_jax.student import Student

VERSIONED = ("jax", "jaxlib", "flax", "numpy", "safetensors", "tokenizers")


class FolderError(ValueError):
    """A folder that must not be written to."""


@dataclasses.dataclass(frozen=True)
class About:
    """What an artifact says of its origin, beside what the student itself knows."""

    preset: str
    averaged: bool
    """Whether the weights are the running average (EMA) of training."""
    embodiment: str
    run: dict[str, Any]
    """Seed, steps and the like of the training run."""
    teacher: dict[str, Any]
    """id, provenance, licence, digest."""


@dataclasses.dataclass(frozen=True)
class Kit:
    """What an exported student needs beside its weights."""

    video: tuple[int, ...]
    """[t, v, h, w, 3] of an observation; the batch is open."""
    body: Embodiment | None = None
    """Of the robot, for a student that acts."""
    tokenizer: str | None = None
    """JSON, for a student that reads."""
    views: tuple[str, ...] = ()
    """Names of the cameras in the order of the video's view axis; of a robot those of its embodiment."""
    features: bool = True
    """Whether a decision holds what the student says of the teacher's features, beside what it does and why."""

    @property
    def cameras(self) -> list[str]:
        """A name for each view."""
        named = list(self.body.transform.video_keys if self.body else self.views)
        return named or [f"view_{index}" for index in range(self.video[1])]


def meta(
    student: Student,
    about: About,
    kit: Kit,
    *,
    call: Callable,
    weights: Weights,
    shapes: dict[str, jax.ShapeDtypeStruct],
) -> dict[str, Any]:
    """Everything that meta.json says but for the checksums. student: folded; shapes: of a call on one observation."""
    acts = kit.body is not None
    language, actions = student.config.language, student.config.actions
    return {
        "format": policy.FORMAT,
        "views": kit.cameras,
        "video": list(kit.video),
        "state": kit.body.dimensions("state") if acts else {},
        "actions": kit.body.dimensions("action") if acts else {},
        "horizon": actions.horizon if actions else 0,
        "language_length": language.length if language else 0,
        "modules": list(student.modules),
        "reasons": {int(reason): reason.name.lower() for reason in irp.Reason},
        "atp": _table(student, shapes, features=kit.features),
        "features": kit.features,
        "matrix": dataclasses.asdict(products.dominant(products.products(jax.make_jaxpr(call)(weights, shapes)))),
        "parameters": sum(leaf.size for name, leaf in weights.items() if not variants.is_scale(name, weights)),
        "student": dataclasses.asdict(student.config),
        "tokenizer": kit.tokenizer,
        "digest": digest(weights),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        **dataclasses.asdict(about),
    }


def _table(student: Student, shapes: dict[str, jax.ShapeDtypeStruct], *, features: bool) -> dict[str, Any]:
    """What a step of each module costs, and how many there are."""
    blank = {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
    inputs = irp.Inputs(
        video=blank["video"],
        state=blank.get("state", jnp.zeros((1, 1, 1))),
        tokens=blank.get("tokens", jnp.zeros((1, 1), jnp.int32)),
        token_mask=blank.get("token_mask", jnp.zeros((1, 1), bool)),
        frame_mask=jnp.ones(blank["video"].shape[:3], bool),
    )
    flops = student.table(inputs)
    if not features:
        flops = {name: dataclasses.replace(entry, output=0.0) for name, entry in flops.items()}
    steps = {name: module.description.max_steps for name, module in student.modules.items()}
    return {
        "flop_per_atp": cost.FLOP_PER_ATP,
        "base": {name: entry.base_atp for name, entry in flops.items()},
        "step": {name: entry.step_atp for name, entry in flops.items()},
        "max_steps": steps,
        # Half a step of slack, so that no rounding of the split loses the last one; what is spent is reported.
        "full": sum((steps[name] + 0.5) * entry.step_atp for name, entry in flops.items()),
    }


def digest(weights: dict[str, np.ndarray]) -> str:
    """sha256 over names, shapes, dtypes and bytes of the weights."""
    found = hashlib.sha256()
    for name, leaf in sorted(weights.items()):
        found.update(f"{name} {leaf.shape} {leaf.dtype}\n".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def check(folder: pathlib.Path) -> None:
    """FolderError where the folder holds something that is no artifact."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not _is_artifact(folder):
        raise FolderError(f"{folder} is there and is no artifact, so it is not overwritten: give another --out")


def _is_artifact(folder: pathlib.Path) -> bool:
    try:
        found = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and isinstance(found.get("format"), int) and "modules" in found


def write(folder: pathlib.Path, meta: dict[str, Any], *, program: bytes, weights: Weights) -> dict[str, Any]:
    """Put a whole artifact where none, or an older one, was; returns the meta with the files' checksums.

    It is written beside its place and moved there: killed at any moment, the place holds the old, the new or none.
    """
    check(folder)
    folder = folder.absolute()
    draft, old = (folder.with_name(f".{folder.name}.{part}") for part in ("draft", "old"))
    for left in (draft, old):
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir(parents=True)
    contents = {"program": program, "weights.safetensors": safetensors.numpy.save(weights)}
    meta = meta | {"files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}}
    contents["meta.json"] = _json(meta).encode()
    contents["README.md"] = card.text(meta, len(contents["weights.safetensors"])).encode()
    for name, content in contents.items():
        (draft / name).write_bytes(content)
    if folder.exists():
        os.rename(folder, old)
    os.rename(draft, folder)
    shutil.rmtree(old, ignore_errors=True)
    return meta


def note(folder: pathlib.Path, found: dict[str, Any]) -> dict[str, Any]:
    """Add what was found out about an artifact to its meta.json and model card; returns the meta."""
    meta = json.loads((folder / "meta.json").read_text()) | found
    size = (folder / "weights.safetensors").stat().st_size
    for name, content in (("meta.json", _json(meta)), ("README.md", card.text(meta, size))):
        draft = folder / f".{name}"
        draft.write_text(content)
        os.replace(draft, folder / name)
    return meta


def _json(meta: dict[str, Any]) -> str:
    return json.dumps(meta, indent=1, allow_nan=False) + "\n"
