"""How fast the store reads at random beside raw files of the same bytes: in turns, page cache warm."""

import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np

from bridge import store
from eval import report, statistics

KEPT = 64  # records read, at most, and together
KEPT_BYTES = 256e6  # so that they fit into the page cache
READ_BYTES = 4e9  # read in all, at most
BATCH, BATCH_BYTES = 64, 8e6  # frames of one batched read
NOTES = {
    "reader.record_read": "one record of image_tokens through bridge.store: decompressed and checksummed",
    "reader.batch_read": "random frames in one concurrent read, as training does",
    "raw_file.record_read": "np.fromfile of the same record's bytes, one file per record",
}


def measure(reader: store.Reader, feature: str, split: str, *, reads: int, seed: int) -> dict[str, np.ndarray]:
    """Megabytes (1e6) per second of at most `reads` random reads, by way of reading; the first of each is left out."""
    rng, tokens = np.random.default_rng(seed), reader.manifest.teacher.tokens
    frame = tokens * reader.manifest.features[feature].row_bytes
    starts, batch = reader.frames(split)[1], int(np.clip(BATCH_BYTES // frame, 1, BATCH))
    chosen = _records(reader, split, frame, rng)
    reads = int(np.clip(READ_BYTES // (frame * batch), 1, reads))
    rates: dict[str, list[float]] = {name: [] for name in NOTES}
    with tempfile.TemporaryDirectory() as folder:
        files = [_raw_file(pathlib.Path(folder), reader.record(feature, record), str(record)) for record in chosen]
        for index in [*range(len(chosen)), *rng.integers(0, len(chosen), size=reads)]:
            record, (path, dtype), frames = chosen[index], files[index], rng.choice(starts, batch)
            ways = (
                lambda r=record: reader.record(feature, r),
                lambda f=frames: reader.read(feature, f, tokens),
                lambda p=path, d=dtype: np.fromfile(p, dtype=d),
            )
            for name, way in zip(NOTES, ways, strict=True):
                rates[name].append(_rate(way))
    return {name: np.array(values[len(chosen) :]) for name, values in rates.items()}


def rows(rates: dict[str, np.ndarray], context: report.Context, *, seed: int) -> list[report.Row]:
    """Median rate of each way, and the store's share of the raw rate."""
    rng, made = np.random.default_rng(seed), []
    for name, samples in rates.items():
        got = statistics.median_interval(samples, rng)
        span = {"n": samples.size, "ci_low": got.low, "ci_high": got.high}
        made.append(report.Row(f"store.{name}", got.value, "MB/s", context, **span, note=NOTES[name]))
    mine, raw = rates["reader.record_read"], rates["raw_file.record_read"]
    got = statistics.ratio_interval(mine, raw, rng)
    span = {"n": mine.size, "ci_low": got.low, "ci_high": got.high}
    note = "records through the store over raw files, warm page cache: what the disk costs is in neither"
    return [*made, report.Row("store.reader.share_of_raw", got.value, "x", context, **span, note=note)]


def _records(reader: store.Reader, split: str, frame: int, rng: np.random.Generator) -> list[int]:
    records = reader.records(split)
    largest = frame * int(reader.counts["frame"][records].max())
    count = int(np.clip(KEPT_BYTES // largest, 1, min(KEPT, len(records))))
    return rng.choice(records, size=count, replace=False).tolist()


def _raw_file(folder: pathlib.Path, array: np.ndarray, name: str) -> tuple[pathlib.Path, np.dtype]:
    (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())
    return folder / name, array.dtype


def _rate(read: Callable[[], np.ndarray]) -> float:
    started = time.perf_counter()
    size = read().nbytes
    return size / 1e6 / (time.perf_counter() - started)
