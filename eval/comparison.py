"""Students against what a robot's store holds of their teacher: rows and pictures that need no simulator."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from bridge import metaworld_tasks, outcomes, store
from eval import control, offline, offline_rows, page, pictures, places, report, runs, tally
from eval.contestants import Cast
from eval.observations import Observations
from eval.options import Config
from eval.ticker import Tick

OBSERVATIONS = {"quick": 256, "standard": 1024, "full": 4096}
"""Read at each level, at most."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of it."""

    rows: list[report.Row]
    pictures: list[page.Picture]


def seen(reader: store.Reader, split: str, level: str) -> Observations:
    """Of the reported split if the store holds it, else of validation."""
    split = split if len(reader.records(split)) else "validation"
    return Observations(reader, split, most=OBSERVATIONS[level])


def needs(observations: Observations) -> str:
    """What bars are defined on and these observations are not, or "": all of the split or as many as are read by
    default, and of the simulated robot as many tasks as its headline needs."""
    simulated = observations.reader.embodiment().tag == outcomes.SUITE
    tasks = {metaworld_tasks.asked_for(text) or text for text in observations.said}
    few = simulated and len(tasks) < tally.ENOUGH_TASKS
    sampled = len(observations) < min(observations.available, OBSERVATIONS["standard"])
    parts = [f">= {tally.ENOUGH_TASKS} tasks in the store" * few]
    parts += [f">= {OBSERVATIONS['standard']:,} observations (or the whole split)" * sampled]
    return " and ".join(filter(None, parts))


def compare(
    cast: Cast,
    observations: Observations,
    context: report.Context,
    *,
    suite: str,
    teacher: Mapping[str, float],
    options: Config,
    tick: Tick,
) -> Comparison:
    """Every student over the observations; all sums go to --out's raw/. teacher: what was measured of it."""
    raw, scores = options.out / "raw", []
    for run in cast.students:
        scores.append(_score(run, observations, tick))
        write(raw / f"offline_seed_{run.seed}.npz", scores[-1])
    drawn = {"draws": options.draws, "seed": options.seed}
    book = offline_rows.Book(scores, observations, context, suite=suite, needs=needs(observations), **drawn)
    rows = book.rows(teacher, _guess(observations.reader))
    return Comparison(rows, [*steps(rows), *located(scores[0].places, observations)])


def _guess(reader: store.Reader) -> np.ndarray | None:
    """The mean places of the objects in the training split; None where the store has no labels or no such split."""
    truth = Observations(reader, "train").places() if len(reader.records("train")) else None
    return None if truth is None else places.mean_position(truth)


def _score(run: runs.Run, observations: Observations, tick: Tick) -> offline.Scores:
    lexicon, _ = control.equipment(run)
    label, total = f"observations, seed {run.seed}", 2 * len(observations)
    return offline.score(run.student, lexicon, observations, lambda done: tick(label, done, total))


def write(path: pathlib.Path, scores: offline.Scores) -> None:
    """The sums, from which anyone can score again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **scores.arrays())


def steps(rows: Sequence[report.Row]) -> list[page.Picture]:
    """Action error after each refinement step."""
    found = sorted((row for row in rows if ".action_mse_step_" in row.id), key=lambda row: row.id)
    if not found:
        return []
    levels = np.array([(row.value, row.ci_low, row.ci_high) for row in found]).T
    caption = (
        "Mean squared distance to the teacher's actions at the same drawn x_0, normalised units, 95 % over episodes."
    )
    picture = pictures.steps(*levels, label="action error")
    return [page.Picture("Action error by refinement step", caption, picture)]


def located(found: places.Places | None, observations: Observations) -> list[page.Picture]:
    """Where the first student says that the objects are, on a few observations."""
    if found is None or not any(found.count(view) for view in range(found.truth.shape[1])):
        return []
    seen = np.flatnonzero(places.in_sight(found.truth).any(axis=(1, 2)))
    error = np.nanmean(found.errors[seen], axis=(1, 2))
    shown = pictures.spread(error)
    examples = [
        pictures.Located(
            f"{error[i]:.1f} pixels", observations.frames(seen[[i]])[0], found.truth[seen[i]], found.told[seen[i]]
        )
        for i in shown
    ]
    caption = (
        f"Rings: where the objects are, {places.TRUTH}. Crosses: where the student says that they are. One colour per "
        f"object; what is out of sight is not drawn. Not chosen by hand: {pictures.SHOWN} of the {observations.split} "
        "observations have a smaller error."
    )
    return [page.Picture("Where the student sees the objects", caption, pictures.located(examples, observations.views))]
