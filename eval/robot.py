"""The suite of a robot without a simulator: students against the store, and plainly that success was not measured."""

import html

from rich.console import Console

from bridge import store
from eval import comparison, contestants, origin, page, report, runs, sizes
from eval import teacher as teachers
from eval.options import Config
from eval.ticker import Ticker

NOT_ASKED = "Success was not measured: --suite robot runs no simulator; --suite metaworld does."
NO_SIMULATOR = (
    "Success was not measured: there is no simulator for this robot. Closeness to the teacher does not rank policies. "
    "To measure it, let student and teacher act on the robot in turn from the same starts, 50 episodes a task or more, "
    "judged by a rule written down before; eval.statistics has wilson() for the interval of a share and sign_test() "
    "for who won more starts."
)
PROVENANCE = {
    "stand-in": "The teacher is a stand-in of GR00T's shape: these numbers say nothing about the real one.",
    "random": "The teacher's weights are random: these numbers say that everything runs, and nothing else.",
}
ELSEWHERE = ("control", "episodes", "tasks")
"""Options that decide who acts and where."""


def benchmark(
    options: Config, reader: store.Reader, url: str, *, command: str, split: str, simulated: bool
) -> report.Report:
    """Score everything, write the report folder. simulated: the store's robot has a simulator, which is not used."""
    if given := [f"--{name}" for name in ELSEWHERE if getattr(options, name)]:
        raise runs.RunError(f"{', '.join(given)}: for --suite metaworld; without a simulator nobody acts")
    made = reader.manifest.teacher
    cast = contestants.load(options.run, (), reader, url)
    name, first = options.teacher or made.id, cast.students[0]
    context = origin.context(first, made.provenance, options.environment, command)
    unmeasured = NOT_ASKED if simulated else NO_SIMULATOR
    rows = [report.Row("robot.student.success", None, "of episodes", context, note=unmeasured)]
    seen = comparison.seen(reader, split, options.level)
    rows += sizes.rows(
        "robot.student", seen.split, ours=cast.parameters, theirs=teachers.parameters(name), context=context
    )
    with Ticker() as tick:
        known = teachers.measured(name)
        offline = comparison.compare(cast, seen, context, suite="robot", teacher=known, options=options, tick=tick)
    found = report.Report((*rows, *offline.rows), origin.versions())
    report.write(options.out / "report.json", found)
    said = [f'<p class="verdict bad">{html.escape(unmeasured)}</p>']
    said += [f'<p class="facts">{html.escape(text)}</p>' for text in [PROVENANCE.get(made.provenance)] if text]
    page.write(options.out, found, offline.pictures, before=said)
    Console(stderr=True).print(unmeasured, style="bold")
    return found
