"""GR00T's six statistics of the rows of one key or column."""

import numpy as np

STATISTICS = ("max", "min", "mean", "std", "q01", "q99")


def measure(rows: np.ndarray) -> dict[str, np.ndarray]:
    """{statistic: float64 [d]} of finite rows [n, d], n >= 1, in float32 as GR00T computes them.

    ValueError where the rows are not finite or not [n, d].
    """
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"must be finite rows [n, d] with n >= 1, got shape {list(rows.shape)}")
    values = {
        "max": rows.max(0),
        "min": rows.min(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "q01": np.quantile(rows, 0.01, axis=0),
        "q99": np.quantile(rows, 0.99, axis=0),
    }
    return {key: np.asarray(value, np.float32).astype(np.float64) for key, value in values.items()}
