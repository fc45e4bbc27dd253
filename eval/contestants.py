"""Who takes part in the robot suite: students and controls by run folder, and policies that know next to nothing."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

from bridge import lanes, store, stored_embodiment
from eval import control, export, runs, trivial
from eval.rollouts import Contestant
from train import warm
from train.actor import Effort

STUDENT, DEMONSTRATIONS = "student", "demonstrations"
OWN = ("energy", "demonstration", "objects")
"""Losses that need no teacher, or (energy) reach nothing but the head that predicts the error."""
OF_GRIDS = ("cells", "features")
"""Losses of students of grids, which no student that acts has."""
OF_H = ("saliency", "foresight", "confidence")
"""Losses that a student without an H-module does not have, whatever their weights."""
EFFORTS = {
    "student_one_step": Effort(steps=1),
    "student_halting": Effort(halting=True),
    "student_drawn": Effort(drawn=True),
}
"""Other ways in which the first student is tried."""
NAME = re.compile(r"[a-z][a-z0-9_]*([+-][a-z0-9_]+)*")
ROWS = lanes.PROCESSES * lanes.SCENES


@dataclasses.dataclass(frozen=True)
class Cast:
    """Runs by name, the student's first, each list ordered by seed."""

    runs: Mapping[str, Sequence[runs.Run]]

    @property
    def students(self) -> Sequence[runs.Run]:
        """The distilled ones."""
        return self.runs[STUDENT]

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the students without (some of) the teacher."""
        return tuple(name for name in self.runs if name != STUDENT)

    def uneven(self, name: str) -> str:
        """What makes a control incomparable with the student: other data, steps, recipe or weights of the losses that
        it has, seeds that no student has; "" where nothing does."""
        ours, theirs = self.students, self.runs[name]
        facts = {
            "data": [{run.record.store for run in part} for part in (ours, theirs)],
            "steps": [{run.record.steps for run in part} for part in (ours, theirs)],
            "seeds": [len(self.shared(name)), len(theirs)],
            "recipe": [runs.recipe(part[0]) | {"loss": None} for part in (ours, theirs)],
            "weights of the losses that it has": [weighed(part[0], of=theirs[0]) for part in (ours, theirs)],
        }
        wrong = [f"other {fact} than the student" for fact, (one, other) in facts.items() if one != other]
        if name == DEMONSTRATIONS and (taught := taught_by_teacher(theirs[0])):
            wrong.append(f"it had the teacher's {', '.join(taught)}")
        return f"not like for like: {'; '.join(wrong)}" if wrong else ""

    def shared(self, name: str) -> tuple[int, ...]:
        """Which students have the seed of one of a control's runs, by position."""
        theirs = {run.seed for run in self.runs[name]}
        return tuple(index for index, run in enumerate(self.students) if run.seed in theirs)

    @property
    def parameters(self) -> int:
        """Values of the student as it is shipped."""
        return export.parameters(self.students[0].student)


def load(folders: Sequence[pathlib.Path], controls: Sequence[str], reader: store.Reader, url: str) -> Cast:
    """The runs, checked against the store's teacher and against each other. controls: NAME=RUN[,RUN...]."""
    found = {STUDENT: _load(folders)}
    for text in controls:
        name, parts = parse(text)
        if name in found or name in (*EFFORTS, "teacher", *trivial.ALL):
            raise runs.RunError(f"--control {text}: the name {name!r} is taken; give another")
        found[name] = _load(parts)
        if found[name][0].record.student != found[STUDENT][0].record.student:
            raise runs.RunError(
                f"--control {text}: another student than {folders[0]}; a control is the same student, taught otherwise"
            )
    for run in (run for members in found.values() for run in members):
        runs.check_store(run, reader, url)
        control.equipment(run)
        _check_body(run, reader, url)
    return Cast(found)


def _check_body(run: runs.Run, reader: store.Reader, url: str) -> None:
    """The store must be in the units that the run acts in; a run without an embodiment cannot act at all."""
    path, wanted = run.folder / warm.EMBODIMENT, reader.manifest.extraction.get(stored_embodiment.DIGEST)
    if path.is_file() and stored_embodiment.digest(path.read_bytes()) != wanted:
        raise runs.RunError(
            f"{run.folder} was trained for another embodiment than {url} holds (other statistics or transform, so "
            "other units): give the --store that it was trained from"
        )


def taught_by_teacher(run: runs.Run) -> list[str]:
    """Losses of a run that came from the teacher."""
    weights = dataclasses.asdict(run.record.config.loss)
    without = (*OWN, *OF_GRIDS, *(() if run.record.student.h_module else OF_H))
    return [name for name, weight in weights.items() if weight and name not in without]


def weighed(run: runs.Run, *, of: runs.Run) -> dict[str, float]:
    """Weights in one run of the losses that another has."""
    mine, theirs = (dataclasses.asdict(one.record.config.loss) for one in (run, of))
    return {name: mine[name] for name, weight in theirs.items() if weight}


def parse(text: str) -> tuple[str, list[pathlib.Path]]:
    """NAME=RUN[,RUN...] -> the name and the folders."""
    name, _, rest = text.partition("=")
    if not NAME.fullmatch(name) or not all(rest.split(",")):
        raise runs.RunError(
            f"--control {text!r}: expected NAME=RUN[,RUN...], as in demonstrations=runs/bc-0,runs/bc-1 (a-z, 0-9, _, +)"
        )
    return name, [pathlib.Path(part) for part in rest.split(",")]


def _load(folders: Sequence[pathlib.Path]) -> list[runs.Run]:
    return sorted(runs.load(folders, "last"), key=lambda run: run.seed)


def actors(cast: Cast, name: str) -> list[Contestant]:
    """One contestant per seed of a name."""
    made = [(run, control.load(run, rows=ROWS)) for run in cast.runs[name]]
    return [Contestant(name, actor, control.digest(actor), run.seed) for run, actor in made]


def otherwise(cast: Cast) -> list[Contestant]:
    """The first student with less thought, one refinement step per module or halting by itself, and from drawn x_0."""
    run = cast.students[0]
    made = [(name, control.load(run, rows=ROWS, effort=effort)) for name, effort in EFFORTS.items()]
    return [Contestant(name, actor, control.digest(actor), run.seed) for name, actor in made]


def simple(reader: store.Reader) -> list[Contestant]:
    """The policies that know next to nothing."""
    nearest, felt = trivial.nearest(reader), trivial.by_state(reader)
    policies = (trivial.zeros, trivial.random, nearest, felt)
    digests = ("zeros 1", "random 1", nearest.digest, felt.digest)
    return [Contestant(*one) for one in zip(trivial.ALL, policies, digests, strict=True)]
