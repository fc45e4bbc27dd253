"""Rows of the race at full size from known seconds: ratios, bars, and what is judged where."""

import dataclasses

import pytest

from eval import report, size_rows
from eval.size_race import Found

CONTEXT = report.Context("random", "none", "sage_48m", 100, "cpu", "abc", "test")
STEPS = {"vision": 4, "language": 2}
META = {
    "parameters": 100,
    "modules": list(STEPS),
    "atp": {"flop_per_atp": 1e7, "base": {"vision": 2.0}, "step": {"vision": 1.0, "language": 2.0}, "max_steps": STEPS},
    "matrix": {"batch": 1, "m": 2, "k": 3, "n": 4, "dtype": "float32", "count": 1},
}
COST = {"actions": {"parameters": 7, "bytes": 12_800, "flops": 2e9}}


def bench(tmp_path, **changes):
    folders = {}
    for dtype, size in (("float32", 400), ("bfloat16", 200), ("int8", 100)):
        folders[dtype] = tmp_path / dtype
        folders[dtype].mkdir(exist_ok=True)
        (folders[dtype] / "weights.safetensors").write_bytes(bytes(size))
    made = size_rows.Bench("sage_48m", "full-size", "cpu", folders, dict.fromkeys(folders, META))
    return dataclasses.replace(made, **changes)


def found(**changes):
    seconds = {
        "student_xla_float32": [0.1] * 200,
        "student_xla_bfloat16": [0.05] * 200,
        "student_openvino_bfloat16": [0.04] * 200,
        "student_openvino_bfloat16@4": [0.1] * 3,
        "student_openvino_bfloat16@0.25": [0.02] * 3,
        "twin_bfloat16_compiled": [0.04] * 20,
        "teacher_bfloat16_eager": [3.0] * 5,
        "teacher_float32_eager": [6.0] * 5,
        "teacher_bfloat16_compiled": [0.9] * 5,
    }
    started = {"compile_s": 1.0, "peak_bytes": 600_000_000}
    student = started | {"steps": STEPS, "flops_per_s": 4e9}
    facts = {name: student for name in seconds if name.startswith("student") and "@" not in name}
    facts["student_openvino_bfloat16"] = student | {"bought": {"0.25": {"vision": 1, "language": 0}}}
    facts |= {"twin_bfloat16": started, "teacher_bfloat16": started | {"costs": COST}}
    given = {"seconds": seconds, "facts": facts, "busy": [0.01, 0.05], "reasons": {"energy": "no counters"}}
    return Found(**given | changes)


def rows(bench, found):
    return {row.id: row for row in size_rows.Book(bench, found, CONTEXT, seed=0).rows()}


def test_ratios_are_over_the_fastest_of_each_kind(tmp_path):
    got = rows(bench(tmp_path), found())
    eager, compiled = got["size.student.over_eager_teacher"], got["size.student.over_compiled_teacher"]
    assert (eager.value, eager.verdict) == (pytest.approx(75), "PASS")
    assert "teacher_bfloat16_eager over p50 of student_openvino_bfloat16" in eager.note
    assert (compiled.value, compiled.verdict) == (pytest.approx(22.5), "FAIL")
    assert got["size.student.over_compiled_twin"].value == pytest.approx(1.0)
    assert got["size.student_xla.over_compiled_twin"].value == pytest.approx(1.25)
    assert got["size.student_xla.over_compiled_twin"].verdict == "PASS"


def test_hardware_is_flops_at_the_steps_taken_over_the_rate(tmp_path):
    got = rows(bench(tmp_path), found())
    assert got["size.student_openvino_bfloat16.flops"].value == pytest.approx(0.1)  # (2 + 4 + 2 * 2) ATP of 10 MFLOP
    over = got["size.student_openvino_bfloat16.over_hardware"]
    assert (over.value, over.bar, over.verdict) == (pytest.approx(0.04 / 0.025), 2.0, "PASS")
    assert got["size.student_xla_float32.over_hardware"].bar is None


def test_throughput_counts_rows_and_energy_says_why_it_is_empty(tmp_path):
    got = rows(bench(tmp_path), found())
    assert got["size.student_openvino_bfloat16.throughput_b1"].value == pytest.approx(25)
    assert got["size.student_openvino_bfloat16.throughput_b4"].value == pytest.approx(40)
    assert got["size.student_openvino_bfloat16.energy"].note == "no counters"
    assert "fewer calls" in got["size.teacher_bfloat16_eager.p99"].note


def test_a_smaller_budget_has_its_latency_and_no_part_in_the_ratios(tmp_path):
    got = rows(bench(tmp_path), found())
    dialled = got["size.student_openvino_bfloat16.p50_at_25"]
    assert (dialled.value, dialled.bar, dialled.n) == (pytest.approx(20), None, 3)
    assert "1 of vision, 0 of language" in dialled.note
    assert got["size.student.over_eager_teacher"].value == pytest.approx(75), "over the full budget's 40 ms"


def test_sizes_and_memory(tmp_path):
    got = rows(bench(tmp_path), found())
    assert got["size.student.smaller"].value == pytest.approx(64)
    assert got["size.student_bfloat16.weights"].verdict == "PASS"
    assert got["size.student_openvino_bfloat16.peak_rss"].verdict == "PASS"
    assert got["size.student_xla_float32.peak_rss"].bar is None
    assert got["size.teacher_bfloat16.parameters"].context.active_parameters is None


def test_a_busy_machine_gives_no_ratio_and_judges_none(tmp_path):
    got = rows(bench(tmp_path), found(busy=[0.01, 0.6]))["size.student.over_eager_teacher"]
    assert got.value is None
    assert got.verdict == report.UNJUDGED
    assert "60% of the cores" in got.note


@pytest.mark.parametrize("changes", [{"preset": "tiny"}, {"teacher": "folder"}])
def test_bars_are_for_the_full_size_alone(tmp_path, changes):
    got = rows(bench(tmp_path, **changes), found())
    assert {row.verdict for row in got.values() if row.bar is not None} == {report.UNJUDGED}


def test_a_student_that_halts_early_is_not_judged(tmp_path):
    facts = found().facts
    facts["student_xla_float32"] = facts["student_xla_float32"] | {"steps": {"vision": 1, "language": 2}}
    got = rows(bench(tmp_path), found(facts=facts))
    assert got["size.student.over_eager_teacher"].verdict == report.UNJUDGED


def test_on_a_gpu_latency_has_bars_and_ratios_have_none(tmp_path):
    got = rows(bench(tmp_path, device="cuda"), found())
    assert got["size.student_openvino_bfloat16.p50"].bar == 1.0
    assert got["size.student_openvino_bfloat16.p99"].bar == 2.0
    assert got["size.student.over_eager_teacher"].bar is None


def test_who_did_not_run_has_its_reason(tmp_path):
    reasons = {"teacher_float32": "needs about 13.6 GB, 8.0 GB of memory are free"}
    seconds = {name: each for name, each in found().seconds.items() if not name.startswith("teacher")}
    got = rows(bench(tmp_path), found(seconds=seconds, reasons=reasons))
    assert got["size.teacher_float32.p50"].note.startswith("needs about 13.6 GB")
    assert got["size.student.over_eager_teacher"].value is None
    assert got["size.student.over_eager_teacher"].verdict == "FAIL"
