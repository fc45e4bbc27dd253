"""The store's reads are compared with raw files of the same bytes."""

import numpy as np
import pytest

from eval import report, throughput

CONTEXT = report.Context("random", "none", "tiny", 1, "cpu", "abc", "test")


def test_every_read_gives_a_rate_both_ways(reader):
    rates = throughput.measure(reader, "image_tokens", "test", reads=20, seed=0)
    assert {name: len(samples) for name, samples in rates.items()} == dict.fromkeys(throughput.NOTES, 20)
    assert min(samples.min() for samples in rates.values()) > 0


def test_raw_files_hold_the_records_own_bytes(reader, tmp_path):
    array = reader.record("image_tokens", 0)
    path, dtype = throughput._raw_file(tmp_path, array, "0")
    assert np.array_equal(np.fromfile(path, dtype=dtype), array.reshape(-1))


def test_large_records_are_read_less_often(reader, monkeypatch):
    monkeypatch.setattr(throughput, "READ_BYTES", 3 * 9 * 16 * throughput.BATCH)
    monkeypatch.setattr(throughput, "KEPT_BYTES", 1)
    rates = throughput.measure(reader, "image_tokens", "test", reads=20, seed=0)
    assert len(rates["reader.record_read"]) == 3


def test_rows_are_medians_and_their_ratio():
    rates = dict(zip(throughput.NOTES, (np.full(9, 50.0), np.full(9, 80.0), np.full(9, 200.0)), strict=True))
    rows = {row.id: row for row in throughput.rows(rates, CONTEXT, seed=0)}
    assert rows["store.reader.record_read"].value == 50
    assert rows["store.raw_file.record_read"].value == 200
    assert rows["store.reader.share_of_raw"].value == pytest.approx(0.25)
