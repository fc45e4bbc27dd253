"""What a policy sees: images, state and an instruction. Nothing else crosses from the world to teacher or student."""

import dataclasses

import numpy as np

AXES = "[batch, time, view, height, width, 3]"


class ObservationError(ValueError):
    """An observation that breaks the contract; the message names the field, what came, and the fix."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """One batch of observations; every field is checked when it is built.

    video: uint8 [b, t, v, h, w, 3], RGB, always six axes.
    state: float32 [b, 1, d], already normalised by the embodiment's statistics.
    instruction: b strings.
    embodiment: the tag of the embodiment that made the state and will read the actions.
    """

    video: np.ndarray
    state: np.ndarray
    instruction: tuple[str, ...]
    embodiment: str

    def __post_init__(self) -> None:
        _check_video(self.video)
        _check_state(self.state, batch=self.video.shape[0])
        _check_text(self.instruction, self.embodiment, batch=self.video.shape[0])

    @property
    def batch(self) -> int:
        """Number of samples."""
        return self.video.shape[0]

    @property
    def images(self) -> int:
        """Images per sample, time-major then view: t * v."""
        return self.video.shape[1] * self.video.shape[2]


def _check_video(video: np.ndarray) -> None:
    if not isinstance(video, np.ndarray):
        raise ObservationError(f"video must be a numpy array, got {type(video).__name__}: convert it with np.asarray")
    if video.ndim != 6:
        raise ObservationError(
            f"video must have six axes {AXES}, got {video.ndim} axes {list(video.shape)}: "
            "insert the missing ones with video[None] (batch, time) or video[:, :, None] (view)"
        )
    if video.dtype != np.uint8:
        raise ObservationError(
            f"video must be uint8 in 0..255, got {video.dtype}: for floats in 0..1 use (video * 255).astype(np.uint8)"
        )
    if video.shape[-1] != 3:
        raise ObservationError(
            f"video's last axis must be 3 RGB channels {AXES}, got {list(video.shape)}: "
            "move channels last, drop alpha, repeat grey three times"
        )
    if 0 in video.shape:
        raise ObservationError(f"video has an empty axis, {AXES} is {list(video.shape)}: give at least one image")


def _check_state(state: np.ndarray, *, batch: int) -> None:
    if not isinstance(state, np.ndarray) or state.dtype != np.float32:
        raise ObservationError(
            f"state must be a float32 numpy array, got {getattr(state, 'dtype', type(state).__name__)}: "
            "use np.asarray(state, np.float32)"
        )
    if state.ndim != 3 or state.shape[:2] != (batch, 1):
        raise ObservationError(
            f"state must be [batch, 1, dimensions] with batch {batch} as in video, got {list(state.shape)}"
        )
    if not np.isfinite(state).all():
        raise ObservationError("state holds NaN or infinite values: mend the sensor data or the statistics")


def _check_text(instruction: tuple[str, ...], embodiment: str, *, batch: int) -> None:
    if not isinstance(instruction, tuple) or not all(isinstance(text, str) for text in instruction):
        raise ObservationError(f"instruction must be a tuple of strings, got {instruction!r}: one string per sample")
    if len(instruction) != batch:
        raise ObservationError(
            f"instruction must hold {batch} strings, one per sample of video, got {len(instruction)}"
        )
    if not isinstance(embodiment, str) or not embodiment:
        raise ObservationError(f"embodiment must be a tag such as 'arc', got {embodiment!r}")
