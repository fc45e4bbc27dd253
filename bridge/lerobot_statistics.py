"""Statistics files of LeRobot v2.1 (per episode) and of GR00T (per dataset)."""

import pathlib
from collections.abc import Mapping

import numpy as np

from bridge import lerobot_files as files
from bridge import statistics

FRAMES = 100  # frames per episode of which a camera's statistics are taken, as in LeRobot


def episode(columns: Mapping[str, np.ndarray], videos: Mapping[str, np.ndarray]) -> dict[str, dict[str, list]]:
    """`stats` of a line of episodes_stats.jsonl: min, max, mean, std, count per column [d] and camera [3, 1, 1]."""
    found = {}
    for name, values in columns.items():
        rows = values.astype(np.float64)
        found[name] = _five(rows if rows.ndim == 2 else rows[:, None], axes=(0,))
    for name, frames in videos.items():
        sample = np.round(np.linspace(0, len(frames) - 1, min(len(frames), FRAMES))).astype(int)
        five = _five(frames[sample] / 255.0, axes=(0, 1, 2))
        found[name] = {key: value if key == "count" else [[[v]] for v in value] for key, value in five.items()}
    return found


def _five(values: np.ndarray, *, axes: tuple[int, ...]) -> dict[str, list]:
    return {
        "min": values.min(axes).tolist(),
        "max": values.max(axes).tolist(),
        "mean": values.mean(axes).tolist(),
        "std": values.std(axes).tolist(),
        "count": [len(values)],
    }


def dataset(paths: list[pathlib.Path], columns: list[str]) -> dict[str, dict[str, list[float]]]:
    """meta/stats.json: GR00T's six statistics of these columns over all rows of all files."""
    tables = [files.read_table(path, columns) for path in paths]
    found = {}
    for name in columns:
        rows = np.concatenate([files.array(p, name, t[name]) for p, t in zip(paths, tables, strict=True)])
        measured = statistics.measure(rows if rows.ndim == 2 else rows[:, None])
        found[name] = {key: values.tolist() for key, values in measured.items()}
    return found
