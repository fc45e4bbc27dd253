"""GR00T's normalisation modes and their inverses, in the order of operations of the official code.

Arrays are numpy's, or of any library that says which module computes with them (`__array_namespace__`).
"""

from collections.abc import Mapping

import numpy as np

MODES = ("min_max", "q99", "mean_std", "binary", "sin_cos", "none")
BOUNDS = {"min_max": ("min", "max"), "q99": ("q01", "q99")}


def width(values: int, mode: str) -> int:
    """How many normalised values a key of this many physical ones has."""
    return 2 * values if mode == "sin_cos" else values


def forward(x: np.ndarray, statistics: Mapping[str, np.ndarray], mode: str) -> np.ndarray:
    """Normalised x [..., d], in x's float type. Degenerate dimensions: 0 for min_max, the raw value otherwise.

    min_max is not clipped; q99 is clipped to [-1, 1]; binary gives 0 or 1; sin_cos takes radians and gives
    [..., 2 d]: all sines, then all cosines (GR1's arms).
    """
    xp = x.__array_namespace__()
    if mode == "sin_cos":
        return xp.concatenate([xp.sin(x), xp.cos(x)], axis=-1)
    if mode == "none":
        return x
    if mode == "binary":
        return (x > 0.5).astype(x.dtype)
    if mode == "mean_std":
        mean, std = statistics["mean"].astype(x.dtype), statistics["std"].astype(x.dtype)
        return xp.where(std != 0, (x - mean) / xp.where(std != 0, std, 1), x).astype(x.dtype)
    low, high = (statistics[name].astype(x.dtype) for name in BOUNDS[mode])
    scaled = 2 * ((x - low) / xp.where(low != high, high - low, 1).astype(x.dtype)) - 1
    if mode == "min_max":
        return xp.where(low != high, scaled, xp.zeros_like(x))
    return xp.clip(xp.where(low != high, scaled, x), -1, 1)


def inverse(x: np.ndarray, statistics: Mapping[str, np.ndarray], mode: str) -> np.ndarray:
    """Physical value of a normalised x [..., width(d, mode)], in x's float type; of sin_cos in (-pi, pi]."""
    if mode == "sin_cos":
        xp = x.__array_namespace__()
        sine, cosine = xp.split(x, 2, axis=-1)
        return xp.arctan2(sine, cosine)
    if mode == "none":
        return x
    if mode == "binary":
        return (x > 0.5).astype(x.dtype)
    if mode == "mean_std":
        return x * statistics["std"].astype(x.dtype) + statistics["mean"].astype(x.dtype)
    low, high = (statistics[name].astype(x.dtype) for name in BOUNDS[mode])
    return (x + 1) / 2 * (high - low) + low
