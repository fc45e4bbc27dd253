"""Every target of the size suite is compared with the student that it came from."""

import pytest

from eval import policy, report, size_parity, size_suite
from eval.options import Config

CONTEXT = report.Context("random", "none", "tiny", 1, "cpu", "abc", "test")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("size")
    return size_suite.prepare(Config(suite="size", student="tiny", teacher="none", out=out, device="cpu"), "cpu")


def test_every_lane_has_its_parity_and_its_types_bar(bench):
    lanes = ("xla_float32", "xla_bfloat16", "xla_int8", "onnxruntime_float32")
    found = size_parity.rows(*size_suite.subject("tiny"), bench, lanes, CONTEXT)
    rows = {row.id: row for row in found}
    assert len(rows) == len(found)
    for lane in ("xla_float32", "onnxruntime_float32"):
        assert rows[f"export.{lane}.worst_max_abs"].verdict == "PASS"
        assert rows[f"export.{lane}.agreed"].value == 1.0
    assert rows["export.xla_bfloat16.worst_cosine"].verdict == "PASS"
    assert rows["export.xla_int8.worst_cosine"].bar is None
    assert rows["export.xla_int8.actions_max_abs"].value > 0


def test_another_students_artifact_is_found_out(bench):
    _, kit = size_suite.subject("tiny")
    other = size_suite.untrained(size_suite.configured("tiny"))
    other.control.prior.bias[...] += 0.1
    rows = {row.id: row for row in size_parity.rows(other, kit, bench, ("xla_float32",), CONTEXT)}
    assert rows["export.xla_float32.worst_max_abs"].verdict == "FAIL"


def test_a_runtime_that_is_missing_has_its_reason(bench, monkeypatch):
    def missing(folder, runtime):
        raise policy.ArtifactError("runtime openvino is not installed")

    monkeypatch.setattr(policy, "load", missing)
    (row,) = size_parity.rows(*size_suite.subject("tiny"), bench, ("openvino_float32",), CONTEXT)
    assert (row.value, row.note) == (None, "runtime openvino is not installed")
