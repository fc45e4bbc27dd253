"""Frames of any size to patches of a square canvas, in the graph: box mean by a whole factor, then a linear resize."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def patches(frames: UInt8[Array, "n h w 3"], canvas: int, patch: int) -> Float[Array, "n p c"]:
    """Patches [n, (canvas/patch)^2 row-major, patch*patch*3] in [-1, 1] of frames stretched to canvas x canvas.

    The box mean is exact: renders of one picture whose sizes differ by a power of two give bit-identical patches if the
    smaller is no smaller than the canvas. Smaller frames are interpolated.

    Weighted sums of gathered rows and columns rather than einsums: the resize matrix has two or three entries a row,
    and XLA turns this into vector loops that cost a tenth of the dense products on a CPU.
    """
    n, grid = frames.shape[0], canvas // patch
    x = _box_mean(frames, canvas)
    row, row_weight = _taps(x.shape[1], canvas)
    column, column_weight = _taps(x.shape[2], canvas)
    lane = (3 * column[:, None] + np.arange(3)).reshape(grid, patch * 3)
    lane_weight = np.repeat(column_weight, 3, axis=1).reshape(-1, grid, patch * 3)

    x = x.reshape(n, x.shape[1], x.shape[2] * 3)
    x = _weighted_sum(row_weight[:, None, :, None], [x[:, row + tap] for tap in range(len(row_weight))])
    x = x.reshape(n, grid, patch, -1)
    strips = [  # one column of patches each, so that patches come out contiguous
        _weighted_sum(weight[:, None, None, None], [x[..., first + 3 * tap] for tap in range(len(weight))])
        for first, weight in zip(lane, lane_weight.swapaxes(0, 1), strict=True)
    ]
    return ((jnp.stack(strips, axis=2) - 127.5) / 127.5).reshape(n, grid * grid, patch * patch * 3)


def flops(height: int, width: int, canvas: int) -> float:
    """Multiply-adds of the resize, two each, per frame."""
    columns = width // _box(width, canvas)
    row_taps = len(_taps(height // _box(height, canvas), canvas)[1])
    return 2.0 * 3 * canvas * (row_taps * columns + len(_taps(columns, canvas)[1]) * canvas)


def _box(side: int, canvas: int) -> int:
    """The largest power of two that divides `side` and leaves at least `canvas` pixels; 1 if there is none."""
    return max(1 << k for k in range(side.bit_length()) if side % (1 << k) == 0 and (k == 0 or side >> k >= canvas))


def _box_mean(frames: UInt8[Array, "n h w 3"], canvas: int) -> Float[Array, "n y x 3"]:
    rows, columns = (_box(side, canvas) for side in frames.shape[1:3])
    x = frames.astype(jnp.int32)
    total = sum(x[:, i::rows, j::columns] for i in range(rows) for j in range(columns))
    return total.astype(jnp.float32) / (rows * columns)


def _weighted_sum(weights: np.ndarray, terms: list[Array]) -> Array:
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


@functools.cache
def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """A triangle-filter resize of one axis: output i is the sum over j of weight[j, i] * x[first[i] + j].

    Returns `first` [target] and `weight` [taps, target]. Half-pixel centres; the filter widens with the shrinking
    (antialiased); the weights of an output sum to 1.
    """
    scale = source / target
    centre = (np.arange(target) + 0.5) * scale - 0.5
    weight = np.maximum(1.0 - np.abs(np.arange(source)[None, :] - centre[:, None]) / max(scale, 1.0), 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    touched = weight > 0
    taps = int(touched.sum(axis=1).max())
    first = np.minimum(touched.argmax(axis=1), source - taps)
    return first, np.take_along_axis(weight, first[:, None] + np.arange(taps), axis=1).T.astype(np.float32)
