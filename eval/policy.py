"""Runs an exported student from its folder: numpy, jax, flatbuffers and safetensors are enough. Imports none of ours.

A folder, as eval.export writes it: `program` (jax.export, weights as arguments), `weights.safetensors`, `meta.json`.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.export
import numpy as np
import safetensors.numpy

FORMAT = 1
RUNTIMES = ("xla",)


class ArtifactError(ValueError):
    """The folder is no artifact that this code can run."""


class InputError(ValueError):
    """What was given to `act` does not fit the artifact."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """One answer for a batch of b observations, all numpy."""

    features: dict[str, np.ndarray]
    """By name, e.g. image_tokens float32 [b, frames, tokens, width] in the teacher's own basis."""
    energy: dict[str, np.ndarray]
    """Per module float32 [b] in [0, 1]: its predicted error e / (e + median validation e)."""
    steps: dict[str, np.ndarray]
    """Per module int32 [b]: refinement steps taken."""
    confidence: np.ndarray
    """float32 [b] in [0, 1]."""
    atp: np.ndarray
    """float32 [b]: compute spent, 1 ATP = 10 MFLOP."""


class Policy:
    """An exported student. Make one with `load`."""

    def __init__(self, program: jax.export.Exported, weights: dict[str, np.ndarray], meta: dict[str, Any]):
        self.meta = meta
        self._weights = jax.device_put(weights)
        self._call = jax.jit(program.call)

    def act(self, observation, *, atp=None, trust=None, seed: int = 0) -> Decision:
        """Answer for `observation`: uint8 video [b, t, v, h, w, 3], or anything with such a `.video`.

        Args: `atp`, the budget per observation, a number or [b] (default: what all steps cost); `trust` in [0, 1], [m]
        or [b, m] in the order of meta["modules"] (default 1); `seed` of the student's own noise. Waits for the result.
        Raises InputError naming the axis, dtype or range that does not fit.
        """
        video = self._video(observation)
        budget = self._budget(atp, len(video))
        shares = self._trust(trust, len(video))
        found = self._call(self._weights, video, budget, shares, np.uint32(seed))
        return Decision(**jax.tree.map(np.asarray, found))

    def _video(self, observation) -> np.ndarray:
        video = np.asarray(getattr(observation, "video", observation))
        wanted = tuple(self.meta["video"])
        if video.dtype != np.uint8:
            raise InputError(f"video: expected uint8 in 0..255, got {video.dtype}; convert it before `act`")
        if video.ndim != 6 or video.shape[1:] != wanted or not len(video):
            shape = ", ".join(map(str, wanted))
            raise InputError(
                f"video: expected [b, t, v, h, w, 3] = [b, {shape}], got {list(video.shape)}; "
                "add missing axes, give one frame at a time (video[:, i : i + 1]), or export for this size"
            )
        return video

    def _budget(self, atp, batch: int) -> np.ndarray:
        budget = self.meta["atp"]["full"] if atp is None else atp
        budget = np.asarray(budget, np.float32)
        if budget.shape not in ((), (batch,)) or not (np.isfinite(budget).all() and (budget >= 0).all()):
            raise InputError(f"atp: expected a number or [{batch}] numbers >= 0, got {atp!r}")
        return np.ascontiguousarray(np.broadcast_to(budget, (batch,)))

    def _trust(self, trust, batch: int) -> np.ndarray:
        modules = self.meta["modules"]
        shares = np.asarray(1.0 if trust is None else trust, np.float32)
        try:
            shares = np.broadcast_to(shares, (batch, len(modules)))
        except ValueError:
            shares = np.full((1,), np.nan)
        if not ((shares >= 0) & (shares <= 1)).all():
            raise InputError(
                f"trust: expected [{len(modules)}] or [b, {len(modules)}] in [0, 1] for {modules}, got {trust!r}"
            )
        return np.ascontiguousarray(shares)


def load(folder: str | pathlib.Path, runtime: str = "xla") -> Policy:
    """Read an artifact folder. Raises ArtifactError (a ValueError) or FileNotFoundError naming the file and the fix."""
    folder = pathlib.Path(folder)
    if runtime not in RUNTIMES:
        raise ArtifactError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}")
    for name in ("meta.json", "program", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; make the artifact with `python -m eval.benchmark`")
    meta = json.loads((folder / "meta.json").read_text())
    if meta.get("format") != FORMAT:
        raise ArtifactError(
            f"{folder / 'meta.json'}: expected format {FORMAT}, got {meta.get('format')}; export it again"
        )
    program = jax.export.deserialize(bytearray((folder / "program").read_bytes()))
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    _check_weights(folder, program, weights)
    return Policy(program, weights, meta)


def _check_weights(folder: pathlib.Path, program: jax.export.Exported, weights: dict[str, np.ndarray]) -> None:
    """The program's own first argument says which weights it wants, with shapes and dtypes."""
    arguments, _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    wanted = {name: (tuple(aval.shape), np.dtype(aval.dtype)) for name, aval in arguments[0].items()}
    given = {name: (array.shape, array.dtype) for name, array in weights.items()}
    if wanted != given:
        wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        shown = "; ".join(f"{n}: wants {wanted.get(n)}, file has {given.get(n)}" for n in wrong[:5])
        raise ArtifactError(
            f"{folder}: weights and program do not belong together ({len(wrong)} differ): {shown}; export again"
        )
