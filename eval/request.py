"""What a client asks, checked against what the artifact reads: every error names the key, what came and what was
expected."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

LANGUAGE = "annotation.human.action.task_description"
"""The key that instructions are announced under; any one key that begins with `annotation.` is read, as GR00T does."""
PROMPT = "prompt"


class RequestError(ValueError):
    """A request that does not fit the artifact."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """What `Policy.act` takes: video uint8 [b, t, v, h, w, 3], state float32 [b, 1, d] in physical units or None,
    instruction b strings."""

    video: np.ndarray
    state: np.ndarray | None
    instruction: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Asked:
    """An observation and the form that its answer takes: with a leading batch axis or not, keys `action.PART` or
    `PART`."""

    observation: Observation
    batched: bool
    prefixed: bool = True


class Form:
    """What an artifact reads, from its meta: views, parts of the state, frames, language."""

    def __init__(self, meta: Mapping[str, Any], *, max_batch: int):
        self.views, self.state = list(meta["views"]), dict(meta["state"] or {})
        self.reads, self.max_batch = bool(meta.get("tokenizer")), max_batch
        frames = meta.get("video")
        self.times = int(frames[0]) if frames else 1
        self.size = tuple(frames[2:4]) if frames else None
        self._keys = {f"video.{view}" for view in self.views} | {f"state.{part}" for part in self.state}

    def blank(self, batch: int = 1) -> Observation:
        """Black pictures, a state of zeros; only where the size of the frames is known."""
        video = np.zeros((batch, self.times, len(self.views), *self.size, 3), np.uint8)
        width = sum(self.state.values())
        return Observation(video, np.zeros((batch, 1, width), np.float32) if width else None, ("go",) * batch)

    def flat(self, given: Any) -> Asked:
        """N1.5: `video.VIEW` [T, H, W, 3], `state.PART` [T, D], `annotation.…` [str]; or all with a leading batch."""
        if not isinstance(given, dict):
            raise RequestError(f"data: expected the observation as a map, got {kind(given)}")
        annotations = [key for key in given if isinstance(key, str) and key.startswith("annotation.")]
        self._check_keys(given, set(annotations))
        first = given[f"video.{self.views[0]}"]
        batched = getattr(first, "ndim", 0) == 5
        videos = [self._video(key, given[key], batched=batched) for key in (f"video.{view}" for view in self.views)]
        batch = len(videos[0])
        if batch > self.max_batch:
            raise RequestError(f"video.{self.views[0]}: {batch} observations at once, at most {self.max_batch}")
        for view, video in zip(self.views, videos, strict=True):
            if video.shape != videos[0].shape:
                want = list(videos[0].shape)
                raise RequestError(f"video.{view}: [b, t, h, w, 3] is {list(video.shape)}, of the first view {want}")
        states = [self._state(f"state.{part}", given, batch=batch, batched=batched) for part in self.state]
        state = np.concatenate(states, axis=-1) if states else None
        texts = self._texts(given, annotations, batch)
        return Asked(Observation(np.stack(videos, axis=2), state, texts), batched)

    def nested(self, given: Any) -> Asked:
        """N1.6: {"video": {VIEW: [B, T, H, W, 3]}, "state": {PART: [B, T, D]}, "language": {KEY: [[str]]}}, answered
        without prefix; or N1.5's flat form, answered with it."""
        if not isinstance(given, dict) or not {"video", "state", "language"} & set(given):
            return self.flat(given)
        flat: dict = {}
        for name, values in given.items():
            if name not in ("video", "state", "language") or not isinstance(values, dict):
                raise RequestError(f"{_named(name)}: expected the maps video, state and language, got {kind(values)}")
            for key, value in values.items():
                flat[f"annotation.{key}" if name == "language" else f"{name}.{key}"] = value
        return dataclasses.replace(self.flat(flat), prefixed=False)

    def openpi(self, given: Any) -> Asked:
        """`observation/VIEW` uint8 [H, W, 3] ([T, H, W, 3] where the student sees several), `observation/state` [D],
        the parts joined in the metadata's order, and `prompt`."""
        if not isinstance(given, dict):
            raise RequestError(f"expected the observation as a map, got {kind(given)}")
        flat = {}
        for key, value in given.items():
            if key == PROMPT:
                flat[LANGUAGE] = [value]
            elif key == "observation/state" and self.state:
                flat |= self._split(value)
            elif isinstance(key, str) and key.removeprefix("observation/") in self.views and "/" in key:
                single = self.times == 1 and isinstance(value, np.ndarray) and value.ndim == 3
                flat["video." + key.removeprefix("observation/")] = value[None] if single else value
            else:
                raise RequestError(f"{_named(key)} is not read; wanted: {', '.join(self.openpi_keys())}")
        if missing := [key for key in self.openpi_keys() if key not in given]:
            raise RequestError(f"{', '.join(missing)} missing")
        return self.flat(flat)

    def openpi_keys(self) -> list[str]:
        """The keys of an observation in openpi's form."""
        keys = [f"observation/{view}" for view in self.views]
        return keys + ["observation/state"] * bool(self.state) + [PROMPT] * self.reads

    def _split(self, value: Any) -> dict[str, np.ndarray]:
        total = sum(self.state.values())
        if not isinstance(value, np.ndarray) or value.shape != (total,):
            raise RequestError(f"observation/state: expected [{total}] numbers, got {kind(value)}")
        parts = np.split(value, np.cumsum(list(self.state.values()))[:-1])
        return {f"state.{part}": values[None] for part, values in zip(self.state, parts, strict=True)}

    def _check_keys(self, given: dict, annotations: set[str]) -> None:
        if missing := sorted(self._keys - set(given)):
            raise RequestError(f"{', '.join(missing)} missing; get_modality_config lists what is read")
        if extra := [key for key in given if key not in self._keys | annotations]:
            raise RequestError(f"{', '.join(map(_named, extra[:5]))} not read; wanted: {', '.join(sorted(self._keys))}")
        if len(annotations) != self.reads:
            raise RequestError(
                f"expected one instruction, as {LANGUAGE}: got {', '.join(map(_named, sorted(annotations))) or 'none'}"
                if self.reads
                else f"{_named(min(annotations))}: this student reads no language, leave it out"
            )

    def _video(self, key: str, value: Any, *, batched: bool) -> np.ndarray:
        """uint8 [b, t, h, w, 3]."""
        size = ", ".join(map(str, self.size or "hw"))
        wanted = f"uint8 [{'b, ' * batched}{self.times}, {size}, 3]"
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 4 + batched:
            raise RequestError(f"{key}: expected {wanted}, got {kind(value)}")
        video = value if batched else value[None]
        if video.shape[1] != self.times or video.shape[4] != 3 or self.size not in (None, video.shape[2:4]):
            raise RequestError(f"{key}: expected {wanted}, got {kind(value)}")
        return video

    def _state(self, key: str, given: dict, *, batch: int, batched: bool) -> np.ndarray:
        """float32 [b, 1, d], finite."""
        value, width = given[key], self.state[key.removeprefix("state.")]
        shape = (batch, 1, width) if batched else (1, width)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.shape != shape:
            raise RequestError(f"{key}: expected numbers {list(shape)}, got {kind(value)}")
        with np.errstate(over="ignore", invalid="ignore"):
            found = value.astype(np.float32).reshape(batch, 1, width)
        if not np.isfinite(found).all():
            raise RequestError(f"{key}: NaN, infinite or beyond float32; mend the sensor data before it is sent")
        return found

    def _texts(self, given: dict, annotations: list[str], batch: int) -> tuple[str, ...]:
        if not self.reads:
            return ("",) * batch
        value = given[annotations[0]]
        try:
            found = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
        except (ValueError, SystemError) as error:  # a code point beyond Unicode
            raise RequestError(f"{_named(annotations[0])}: expected text, got {kind(value)}: {error}") from error
        found = [found] if isinstance(found, str) else found
        if isinstance(found, list):
            found = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in found]
        if not isinstance(found, list) or len(found) != batch or not all(isinstance(text, str) for text in found):
            raise RequestError(f"{_named(annotations[0])}: expected {batch} strings in a list, got {kind(value)}")
        return tuple(found)


def _named(key: Any) -> str:
    return key[:80] if isinstance(key, str) else repr(key)[:80]


def kind(value: Any) -> str:
    """What came, in a few words. Never shows the values of an array: text in it may be none."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return (
        f"{type(value).__name__} {repr(value)[:60]}" if isinstance(value, str | int | float) else type(value).__name__
    )
