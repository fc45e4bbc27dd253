"""Runs an exported student from its folder: numpy, jax, flatbuffers, safetensors and tokenizers are enough. Imports
none of ours, so that this file and runtimes.py may be copied beside an artifact.

A folder, as eval.export writes it: `program` (jax.export, weights as arguments), `weights.safetensors`, `meta.json`,
and `model.onnx` where it was asked for; with onnxruntime or OpenVINO neither jax nor the first two are read.
"""

import collections
import dataclasses
import hashlib
import importlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tokenizers

FORMAT = 2
RUNTIMES = ("auto", "xla", "onnxruntime", "openvino")
REMEMBERED = 256
"""Instructions whose tokens are kept."""
LETTERS = 64
"""Characters per token beyond which an instruction is not even encoded."""
REMEDY = "export again: python -m eval.export --run RUN --out ARTIFACT"


class ArtifactError(ValueError):
    """The folder is no artifact that this code can run."""


class InputError(ValueError):
    """What was given to `act` does not fit the artifact."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """One answer for a batch of b observations, all numpy."""

    energy: dict[str, np.ndarray]
    """Per module float32 [b] in [0, 1]: its predicted error e / (e + median validation e)."""
    steps: dict[str, np.ndarray]
    """Per module int32 [b]: refinement steps taken."""
    reason: dict[str, np.ndarray]
    """Per module int32 [b]: why it stopped; meta["reasons"] has the words."""
    confidence: np.ndarray
    """float32 [b] in [0, 1]."""
    atp: np.ndarray
    """float32 [b]: compute spent, 1 ATP = 10 MFLOP."""
    actions: dict[str, np.ndarray] | None = None
    """By part in the order of meta["actions"], float32 [b, horizon, d] in physical units; None: it does not act."""
    features: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """By name, e.g. image_tokens float32 [b, frames, tokens, width] in the teacher's own basis. An artifact that was
    exported without them has only what explains its decisions: with an H-module saliency [b, frames, tokens]."""


class Policy:
    """An exported student. Make one with `load`."""

    def __init__(self, run: Callable[[dict[str, np.ndarray]], dict[str, Any]], meta: dict[str, Any]):
        """run: the program, from checked inputs by name to outputs by name, all numpy."""
        self.meta = meta
        self.run = run
        self._words = Words(meta["tokenizer"], meta["language_length"]) if meta["tokenizer"] else None

    def act(self, observation, *, atp=None, trust=None, seed: int = 0) -> Decision:
        """Answer for `observation`, anything with `.video` uint8 [b, t, v, h, w, 3] in the order of meta["views"],
        `.state` float32 [b, 1, d] in physical units in the order of meta["state"] and `.instruction`, b strings; the
        video alone is enough for a student that only sees.

        Args: `atp`, the budget per observation, a number or [b] (default: what all steps cost); `trust` in [0, 1], [m]
        or [b, m] in the order of meta["modules"] (default 1); `seed` of the student's own noise. Waits for the result.
        Raises InputError naming the axis, dtype or range that does not fit.
        """
        found = dict(self.run(self.given(observation, atp=atp, trust=trust, seed=seed)))
        actions = found.pop("actions", None)
        return Decision(**found, actions=None if actions is None else self._parts(actions))

    def given(self, observation, *, atp=None, trust=None, seed: int = 0) -> dict[str, np.ndarray]:
        """The program's inputs by name, checked; see `act`."""
        video = self._video(getattr(observation, "video", observation))
        if not 0 <= seed < 2**32:
            raise InputError(f"seed: expected 0 <= seed < 2**32, got {seed}")
        found = {
            "video": video,
            "atp": self._budget(atp, len(video)),
            "trust": self._trust(trust, len(video)),
            "seed": np.uint32(seed),
        }
        if self._words is not None:
            said = self._words(_field(observation, "instruction"), len(video))
            found |= dict(zip(("tokens", "token_mask"), said, strict=True))
        if self.meta["state"]:
            found["state"] = self._state(_field(observation, "state"), len(video))
        return found

    def _parts(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        widths = self.meta["actions"]
        ends = np.cumsum(list(widths.values()))
        return dict(zip(widths, np.split(actions, ends[:-1], axis=-1), strict=True))

    def _video(self, video) -> np.ndarray:
        video, wanted = np.asarray(video), tuple(self.meta["video"])
        if video.dtype != np.uint8:
            raise InputError(f"video: expected uint8 in 0..255, got {video.dtype}; convert it before `act`")
        if video.ndim != 6 or video.shape[1:] != wanted or not len(video):
            shape, views = ", ".join(map(str, wanted)), ", ".join(self.meta["views"])
            raise InputError(
                f"video: expected [b, t, v, h, w, 3] = [b, {shape}] with views {views}, got {list(video.shape)}; "
                "add missing axes, give one frame at a time (video[:, i : i + 1]), or export for this size"
            )
        return video

    def _state(self, state, batch: int) -> np.ndarray:
        state, parts = np.asarray(state), self.meta["state"]
        shape = (batch, 1, sum(parts.values()))
        if state.dtype != np.float32 or state.shape != shape:
            raise InputError(
                f"state: expected float32 {list(shape)}, columns {_columns(parts)} in physical units, "
                f"got {state.dtype} {list(state.shape)}"
            )
        if not np.isfinite(state).all():
            row, _, column = map(int, np.argwhere(~np.isfinite(state))[0])
            raise InputError(
                f"state: {state[row, 0, column]} in row {row}, column {column} ({_columns(parts)}): no decision is "
                "made from a state that is not finite; mend the sensor or hold the robot"
            )
        return state

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


class Words:
    """Instructions to tokens, each remembered: a robot is told the same thing at every step."""

    def __init__(self, text: str, length: int):
        self._tokenizer, self._length = tokenizers.Tokenizer.from_str(text), length
        self._known: collections.OrderedDict[str, list[int]] = collections.OrderedDict()

    def __call__(self, texts: Sequence[str], batch: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens int32 [b, l], mask bool [b, l]), padded on the right with 0; InputError where a text does not fit."""
        if isinstance(texts, str) or len(texts) != batch:
            raise InputError(f"instruction: expected {batch} strings, one per observation, got {texts!r:.80}")
        tokens = np.zeros((batch, self._length), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            ids = self._ids(text)
            row[: len(ids)] = ids
        return tokens, tokens > 0

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._encoded(text)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(text)
        return self._known[text]

    def _encoded(self, text: str) -> list[int]:
        if isinstance(text, str) and len(text) > LETTERS * self._length:  # it would hold up every thread while encoded
            raise InputError(f"instruction: {len(text):,} characters, too long for {self._length} tokens: shorten it")
        try:
            ids = self._tokenizer.encode(text).ids
        except (UnicodeEncodeError, TypeError) as error:  # half a character, or no text at all
            raise InputError(f"instruction: expected text, got {text!r:.80}") from error
        if len(ids) > self._length:
            raise InputError(
                f"instruction: {len(ids)} tokens in {text!r:.80}, but the limit is {self._length}: shorten it, or "
                "train a student on data that holds one as long"
            )
        return ids


def load(folder: str | pathlib.Path, runtime: str = "auto") -> Policy:
    """Read an artifact folder, to be run by "xla", "onnxruntime" or "openvino"; see runtimes.best for "auto".

    Raises ArtifactError (a ValueError) or FileNotFoundError naming the file and the fix.
    """
    folder = pathlib.Path(folder)
    if runtime not in RUNTIMES:
        raise ArtifactError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}")
    meta = read_meta(folder)
    return Policy(_run(folder, meta, runtime), meta)


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
    """meta.json of a folder whose files are all there and are those that were written."""
    path = folder / "meta.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, so {folder} is no artifact; make one: {REMEDY}")
    try:
        meta = json.loads(path.read_text())
        found = meta.get("format")
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {REMEDY}") from error
    if found != FORMAT:
        raise ArtifactError(f"{path}: this code reads format {FORMAT}, it is {found}; {REMEDY}")
    for name, wanted in _files(path, meta.get("files")).items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; {REMEDY}")
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                raise ArtifactError(f"{folder / name} is not the file that was exported (cut off or changed); {REMEDY}")
    return meta


def _files(path: pathlib.Path, files: Any) -> dict[str, str]:
    if not isinstance(files, dict) or not {"program", "weights.safetensors"} <= set(files):
        raise ArtifactError(f"{path}: its `files` are not program, weights.safetensors and what is beside; {REMEDY}")
    if outside := [name for name in files if {"/", "\\"} & set(name)]:
        raise ArtifactError(f"{path}: {outside[0]!r:.80} is no file of this folder; {REMEDY}")
    return files


def _run(folder: pathlib.Path, meta: dict[str, Any], runtime: str) -> Callable:
    """From the file beside this one, whether they are in a package or were copied."""
    runtimes = importlib.import_module(f"{__package__}.runtimes" if __package__ else "runtimes")
    try:
        return runtimes.start(runtime, folder, meta)
    except runtimes.Unusable as error:
        raise ArtifactError(str(error)) from error


def _field(observation, name: str):
    value = getattr(observation, name, None)
    if value is None:
        raise InputError(f"{name}: this student needs it; give an observation with .video and .{name}")
    return value


def _columns(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} [{width}]" for name, width in parts.items())
