"""How fast the store reads random records beside raw files of the same bytes: in turns, page cache warm."""

import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np

from bridge import store
from eval import report, statistics

KEPT = 64  # records read, at most: they fit into the page cache
NOTES = {
    "reader": "one record of image_tokens through bridge.store: decompressed and checksummed",
    "raw_file": "np.fromfile of the same bytes, one file per record",
}


def measure(reader: store.Reader, feature: str, records: np.ndarray, *, reads: int, seed: int) -> dict[str, np.ndarray]:
    """Megabytes (1e6) per second of `reads` random reads, by way of reading; the first read of each is not counted."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(records, size=min(len(records), KEPT), replace=False)
    rates: dict[str, list[float]] = {"reader": [], "raw_file": []}
    with tempfile.TemporaryDirectory() as folder:
        files = [_raw_file(pathlib.Path(folder), reader.record(feature, int(record)), str(record)) for record in chosen]
        for index in [*range(len(chosen)), *rng.integers(0, len(chosen), size=reads)]:
            path, dtype = files[index]
            rates["reader"].append(_rate(lambda i=index: reader.record(feature, int(chosen[i]))))
            rates["raw_file"].append(_rate(lambda p=path, d=dtype: np.fromfile(p, dtype=d)))
    return {name: np.array(values[len(chosen) :]) for name, values in rates.items()}


def rows(rates: dict[str, np.ndarray], context: report.Context, *, seed: int) -> list[report.Row]:
    """Median rate of each way, and the store's share of the raw rate."""
    rng, made = np.random.default_rng(seed), []
    for name, samples in rates.items():
        got = statistics.median_interval(samples, rng)
        span = {"n": samples.size, "ci_low": got.low, "ci_high": got.high}
        made.append(report.Row(f"store.{name}.record_read", got.value, "MB/s", context, **span, note=NOTES[name]))
    got = statistics.ratio_interval(rates["reader"], rates["raw_file"], rng)
    span = {"n": rates["reader"].size, "ci_low": got.low, "ci_high": got.high}
    note = "store over raw files, warm page cache: what the disk costs is in neither"
    return [*made, report.Row("store.reader.share_of_raw", got.value, "x", context, **span, note=note)]


def _raw_file(folder: pathlib.Path, array: np.ndarray, name: str) -> tuple[pathlib.Path, np.dtype]:
    (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())
    return folder / name, array.dtype


def _rate(read: Callable[[], np.ndarray]) -> float:
    started = time.perf_counter()
    size = read().nbytes
    return size / 1e6 / (time.perf_counter() - started)
