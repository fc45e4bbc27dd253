"""How large the student is, and how many times smaller than its teacher."""

from eval import report

SMALLER = 3.0
"""Bar: times fewer values than the teacher."""


def rows(prefix: str, split: str, *, ours: int, theirs: int | None, context: report.Context) -> list[report.Row]:
    """`prefix` is suite.subject; theirs None: the teacher's weights are not here."""
    note = f"{theirs:,} values against {ours:,}" if theirs else "the teacher's folder is not on this machine"
    times = theirs / ours if theirs else None
    return [
        report.Row(f"{prefix}.parameters.{split}", float(ours), "values", context, better="lower",
                   note="as it is shipped, constants included"),
        report.Row(f"{prefix}.parameters_ratio.{split}", times, "times fewer", context, bar=SMALLER, note=note),
    ]  # fmt: skip
