"""Videos for the report: teacher and student on the same goal side by side, H.264 that every browser plays."""

import fractions
import pathlib
from collections.abc import Sequence

import av
import numpy as np

from bridge import scene, simulator
from bridge.outcomes import Outcome

OPTIONS = {"crf": "20", "preset": "veryfast", "threads": "1"}
SCALE, GAP = 2, 16
EACH = 2
"""Solved and failed episodes shown, at most."""


def choose(outcomes: Sequence[Outcome], tasks: Sequence[str]) -> list[Outcome]:
    """Solved and failed episodes, EACH of both where there are as many, from different tasks, in the order of tasks."""
    found = []
    for success in (True, False):
        firsts = [next((o for o in outcomes if (o.task, o.success) == (task, success)), None) for task in tasks]
        found += [one for one in firsts if one is not None][:EACH]
    return found


def flat(frames: np.ndarray) -> np.ndarray:
    """Views uint8 [n, v, h, w, 3] side by side: [n, h, v * w, 3]."""
    n, v, h, w, c = frames.shape
    return frames.transpose(0, 2, 1, 3, 4).reshape(n, h, v * w, c)


def film(policy: simulator.Policy, chosen: Sequence[Outcome], farm: object) -> list[np.ndarray]:
    """The chosen episodes run again under no disturbance and filmed, views side by side."""
    jobs = [simulator.Job(one.task, one.goal_seed, one.instruction) for one in chosen]
    filmed = simulator.run(policy, jobs, conditions=simulator.Conditions(record=True), shared=farm)
    return [flat(episode.frames) for episode in filmed]


def beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Clips uint8 [n_i, h, w_i, 3] enlarged and side by side; the shorter ones stand still at their end."""
    length = max(len(part) for part in parts)
    held = [np.concatenate([part, np.repeat(part[-1:], length - len(part), axis=0)]) for part in parts]
    large = [part.repeat(SCALE, axis=1).repeat(SCALE, axis=2) for part in held]
    gap = np.full((length, large[0].shape[1], GAP, 3), 255, np.uint8)
    return np.concatenate([piece for part in large for piece in (part, gap)][:-1], axis=2)


def write(path: pathlib.Path, frames: np.ndarray, *, fps: float = scene.FPS) -> None:
    """uint8 [n, h, w, 3], h and w even, as an mp4 (H.264, yuv420p, playable while it loads)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = fractions.Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read(path: pathlib.Path) -> np.ndarray | None:
    """All frames of a video, uint8 [n, h, w, 3]; None where there is none."""
    if not path.is_file():
        return None
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
