"""Rows of the race from known seconds: units, ratios, and reasons in the empty cells."""

import numpy as np
import pytest

from eval import report, speed

CONTEXT = report.Context("random", "none", "tiny", 100, "cpu", "abc", "test")
META = {
    "parameters": 100,
    "atp": {"flop_per_atp": 10e6, "base": {"vision": 2.0}, "step": {"vision": 1.0}},
    "matrix": {"batch": 1, "m": 2, "k": 3, "n": 4, "dtype": "float32", "count": 1},
}
STUDENT = {"steps": {"vision": 3}, "flops_per_s": 1e9, "compile_s": 1.5, "peak_bytes": 5_000_000}
COST = {"parameters": 7, "bytes": 28, "flops": 2e6}
TEACHER = {
    "peak_bytes": 9_000_000,
    "compile_s": 0.1,
    "device_peak_bytes": 2_000_000,
    "costs": {"image_tokens": COST, "backbone_features": COST},
}
NAMES = ("teacher_float32_eager", "teacher_bfloat16_eager")


def rows(lanes, *, facts=None, reasons=None, busy=0.0):
    found = speed.Speed(META, 400, {"student": STUDENT, **(facts or {})}, lanes, reasons or {}, busy)
    return {row.id: row for row in speed.Book(found, CONTEXT, 0).rows(NAMES)}


def lanes():
    return {
        "student.image_tokens": np.full(10, 0.1),
        "teacher_float32_eager.image_tokens": np.full(10, 0.4),
        "teacher_bfloat16_eager.image_tokens": np.full(10, 0.3),
        "teacher_bfloat16_eager.backbone_features": np.full(10, 0.6),
    }


def test_latency_is_in_milliseconds_and_the_tail_is_beside_it():
    got = rows({"student.image_tokens": np.linspace(0.1, 0.2, 101)})
    assert got["speed.student.image_tokens_p50"].value == pytest.approx(150)
    assert got["speed.student.image_tokens_p95"].value == pytest.approx(195)
    assert got["speed.student.image_tokens_p50"].n == 101


def test_speedup_is_over_the_fastest_teacher_at_the_same_outputs():
    got = rows(lanes())["speed.student.speedup"]
    assert got.value == pytest.approx(3)
    assert "teacher_bfloat16_eager" in got.note


def test_a_busy_machine_gives_no_ratio():
    got = rows(lanes(), busy=0.6)
    assert got["speed.student.speedup"].value is None
    assert "60% of the cores" in got["speed.student.speedup"].note
    assert got["speed.machine.busy"].value == 0.6
    assert rows(lanes(), busy=0.1)["speed.student.speedup"].value == pytest.approx(3)


def test_hardware_share_is_p50_over_flops_at_the_steps_taken():
    got = rows(lanes())
    assert got["speed.student.flops"].value == pytest.approx(50)  # (2 + 3 * 1) ATP of 10 MFLOP
    assert got["speed.student.over_hardware"].value == pytest.approx(0.1 / (50e6 / 1e9))


def test_an_absent_teacher_leaves_empty_cells_with_its_reason():
    reason = "ModuleNotFoundError: No module named 'torch'"
    got = rows({"student.image_tokens": np.full(10, 0.1)}, reasons=dict.fromkeys(NAMES, reason))
    for name in NAMES:
        assert got[f"speed.{name}.image_tokens_p50"].value is None
        assert got[f"memory.{name}.peak_rss"].note == reason
    assert got["speed.student.speedup"].value is None


def test_one_failed_output_does_not_empty_the_other():
    got = rows(lanes(), reasons={"teacher_float32_eager.backbone_features": "out of memory"})
    assert got["speed.teacher_float32_eager.backbone_features_p50"].note == "out of memory"
    assert got["speed.teacher_float32_eager.image_tokens_p50"].value == pytest.approx(400)


def test_memory_and_size_of_both():
    got = rows(lanes(), facts={NAMES[0]: TEACHER})
    assert got["memory.student.peak_rss"].value == 5
    assert got[f"memory.{NAMES[0]}.peak_rss"].value == 9
    assert got[f"memory.{NAMES[0]}.peak_device"].value == 2
    assert got["size.student.parameters"].value == 100
    assert got[f"size.{NAMES[0]}.image_tokens_flops"].value == 2


def test_compilation_is_a_row_of_its_own_for_whoever_compiles():
    got = rows(lanes(), facts={NAMES[0]: TEACHER})
    assert got["speed.student.compile"].value == 1.5
    assert f"speed.{NAMES[0]}.compile" not in got


def test_teacher_rows_do_not_carry_the_students_size():
    got = rows(lanes())
    assert got["speed.student.image_tokens_p50"].context.active_parameters == 100
    assert got[f"speed.{NAMES[0]}.image_tokens_p50"].context.active_parameters is None


def test_commands_cover_both_types_eager_and_compiled(tmp_path):
    teacher = speed.Teacher("standin-arc", 1, "digest", "folder")
    commands = teacher.commands(tmp_path / "o.npz", compiled=True, device="cpu")
    assert tuple(commands) == speed.TEACHERS
    assert "--compile" in commands["teacher_bfloat16_compiled"]
    assert "--compile" not in commands["teacher_bfloat16_eager"]
    assert len(teacher.commands(tmp_path / "o.npz", compiled=False, device="cpu")) == 2
