"""What a checkpoint may claim to be: real, a stand-in or random. Our own weights have a provenance.json beside them."""

import json
import math
import os
import pathlib
from collections.abc import Mapping

import torch

from teacher_torch.groot import keys, shards

FILE = "provenance.json"
ACCOUNT = "posttrain.json"  # what was done to published weights, which carry no provenance.json and stay "real"
REAL, STAND_IN, RANDOM = "real", "stand-in", "random"
PUBLISHED_VALUES = 2_398_284_528  # of nvidia/GR00T-N1.5-3B, without its unused pooling and output heads
# Matrices of every part; training gives rows of unequal length, drawing every entry alike does not.
SAMPLED = (
    "tower.encoder.layers.0.mlp.fc1.weight",
    "tower.encoder.layers.0.self_attn.q_proj.weight",
    "language.layers.0.self_attn.q_proj.weight",
    "language.layers.0.mlp.down_proj.weight",
)


class ProvenanceError(ValueError):
    """A provenance.json that claims what it cannot; the message names the file and the fix."""


def of(folder: pathlib.Path) -> str:
    """What the weights in a folder are: "real", "stand-in" or "random"; where in doubt, the lesser claim.

    A folder with a provenance.json is what the file says, and the file cannot say "real". Without one, weights are real
    if they are exactly as many as the published ones, under the published names, and were trained at all; weights of
    any other size are a stand-in, and weights whose entries were all drawn alike are random.
    """
    if (folder / FILE).is_file():
        return _claimed(folder)
    stored = shards.files(folder)
    found, unknown, doubled = keys.sources(stored, with_head=True)
    if _untrained(stored, found):
        return RANDOM
    shapes = shards.shapes(stored)
    values = sum(math.prod(shapes[key][0]) for key in found.values())
    return REAL if values == PUBLISHED_VALUES and not unknown and not doubled else STAND_IN


def licence(folder: pathlib.Path, kind: str) -> str:
    """Licence of the weights, in words."""
    if kind == REAL:
        return "NVIDIA, non-commercial (as reported for N1.5; check the model card)"
    return read(folder).get("licence", "unknown") if (folder / FILE).is_file() else "unknown"


def read(folder: pathlib.Path) -> dict:
    """The contents of provenance.json."""
    try:
        content = json.loads((folder / FILE).read_text())
    except ValueError as error:
        raise ProvenanceError(f"{folder / FILE} is not JSON ({error}): train or copy the teacher again") from error
    if not isinstance(content, dict):
        raise ProvenanceError(f"{folder / FILE} must be a JSON object: train or copy the teacher again")
    return content


def task(folder: pathlib.Path) -> str | None:
    """What this project trained the weights for, "arc" | "robot"; None where it did not make them or did not say."""
    settings = read(folder).get("settings") if (folder / FILE).is_file() else None
    return settings.get("task") if isinstance(settings, dict) else None


def write(folder: pathlib.Path, content: Mapping[str, object]) -> None:
    """Put provenance.json there, whole or not at all."""
    if content.get("provenance") not in (STAND_IN, RANDOM):
        raise ProvenanceError(f"this project makes {STAND_IN} and {RANDOM} weights, not {content.get('provenance')!r}")
    _replace(folder / FILE, content)


def account(folder: pathlib.Path, content: Mapping[str, object]) -> None:
    """Put the account of a post-training there: provenance.json, or posttrain.json where the weights are published."""
    if content.get("provenance") == REAL:
        _replace(folder / ACCOUNT, content)
    else:
        write(folder, content)


def account_file(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """Where `account` puts it for weights of this provenance."""
    return folder / (ACCOUNT if kind == REAL else FILE)


def measured(folder: pathlib.Path) -> dict[str, float]:
    """What was measured after post-training, by name; empty where nothing was."""
    for name in (FILE, ACCOUNT):
        if (folder / name).is_file():
            return dict(json.loads((folder / name).read_text()).get("measured", {}))
    return {}


def _replace(path: pathlib.Path, content: Mapping[str, object]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False))
    os.replace(partial, path)


def _claimed(folder: pathlib.Path) -> str:
    claim = read(folder).get("provenance")
    if claim not in (STAND_IN, RANDOM):
        raise ProvenanceError(
            f'{folder / FILE} says {claim!r}; it may say "{STAND_IN}" or "{RANDOM}". Published weights carry no such '
            "file: remove it if these are theirs"
        )
    return claim


def _untrained(stored: Mapping[str, pathlib.Path], found: Mapping[str, str]) -> bool:
    """Whether the rows of every sampled matrix are as alike in length as independent draws, 1/sqrt(2n) at n columns."""
    wanted = {found[name]: stored[found[name]] for name in SAMPLED if name in found}
    for _, matrix in shards.read(wanted):
        length = torch.linalg.vector_norm(matrix.float().flatten(1), dim=1)
        if float(length.std() / length.mean()) > 2 / math.sqrt(2 * matrix[0].numel()):
            return False
    return True
