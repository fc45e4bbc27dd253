"""How far every target of the exported student is from the student itself, on random observations."""

from collections.abc import Sequence

from eval import parity, policy, report
from eval.artifact import Kit
from eval.size_rows import Bench
from student_jax.student import Student

BATCH = 4


def rows(student: Student, kit: Kit, bench: Bench, lanes: Sequence[str], context: report.Context) -> list[report.Row]:
    """`export.LANE.METRIC` for every lane, RUNTIME_DTYPE; of one that cannot run here, why."""
    return [row for lane in lanes for row in _of(student, kit, bench, lane, context)]


def _of(student: Student, kit: Kit, bench: Bench, lane: str, context: report.Context) -> list[report.Row]:
    runtime, _, dtype = lane.partition("_")
    try:
        loaded = policy.load(bench.folders[dtype], runtime=runtime)
    except policy.ArtifactError as reason:
        return [report.Row(f"export.{lane}.worst_max_abs", None, "", context, better="lower", note=str(reason))]
    return parity.compare(student, kit, loaded, batch=BATCH).rows(context, lane)
