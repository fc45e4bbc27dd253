"""Trained students by run folder, and whether they belong together and to a store."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Literal

from flax import nnx

from bridge import store
from student_jax.student import Student
from train import checkpoint, plain, record

HOME = pathlib.Path("runs")


class RunError(ValueError):
    """Runs that cannot be reported as asked; the message names the folder and the fix."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained student: its folder, what config.json says of it, and a checkpoint's averaged weights."""

    folder: pathlib.Path
    record: record.Record
    student: Student

    @property
    def preset(self) -> str:
        """The preset it was trained with."""
        return self.record.config.preset

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return self.record.config.seed


def newest(home: pathlib.Path = HOME) -> pathlib.Path:
    """The run folder under `home` whose best checkpoint changed last."""
    found = [path.parent for path in home.glob("*/best") if (path.parent / record.FILE).is_file()]
    if not found:
        raise RunError(f"no trained run in {home}/; train one: python -m train.main --store STORE --out {home}/vision")
    return max(found, key=lambda folder: ((folder / "best").stat().st_mtime, folder.name))


def recipe(run: Run) -> dict:
    """What decides the weights beside seed, store and student, as plain values by dotted name's first part. Of the run
    that it started from, and of further stores, only how many: those of another seed are other folders."""
    found = plain.to_json(run.record.config)
    kept = {name: value for name, value in found.items() if name not in ("seed", "launch", "loop")}
    counted = {"init": int(bool(found["init"])), "also": len(found["also"])}
    return kept | counted | {"objective": run.record.objective}


def load(folders: Sequence[pathlib.Path], which: Literal["best", "last"] = "best") -> list[Run]:
    """The runs, which must differ in nothing but their seed; `last`: of the end of training, whatever was best."""
    runs = []
    for folder in folders:
        student, _ = checkpoint.load_student(folder, which)
        runs.append(Run(folder, record.read(folder), student))
    first = runs[0]
    for other in runs[1:]:
        if (other.record.student, other.record.teacher) != (first.record.student, first.record.teacher):
            raise RunError(
                f"{first.folder} and {other.folder} differ in student or teacher: only seeds of one setting are "
                "averaged; report them one by one with --run and --out"
            )
        if unlike := plain.differences(recipe(first), recipe(other)):
            raise RunError(
                f"{first.folder} and {other.folder} were trained differently ({'; '.join(unlike)}): only seeds of one "
                "setting are averaged; a control is given with --control"
            )
        if other.seed in [run.seed for run in runs if run is not other]:
            raise RunError(f"{other.folder} has seed {other.seed} like another --run: give runs of different seeds")
    return runs


def priced(run: Run, price: float | None) -> Run:
    """The run with another price of thinking (sizes.HConfig.price); RunError where it is no price. None: its own."""
    h_module = run.student.config.h_module
    if price is None or h_module is None:
        return run
    if not 0 <= price < math.inf:
        raise RunError(f"--price {price}: expected 0 (think as long as it helps at all) or more")
    student = nnx.clone(run.student)
    student.config = dataclasses.replace(student.config, h_module=dataclasses.replace(h_module, price=price))
    return dataclasses.replace(run, student=student)


def check_store(run: Run, reader: store.Reader, url: str) -> None:
    """The store must hold features of the teacher that the run imitates."""
    teacher, wanted = dataclasses.asdict(reader.manifest.teacher), run.record.teacher
    if wrong := [name for name in wanted if wanted[name] != teacher.get(name)]:
        shown = "; ".join(f"{name} {wanted[name]!r} there, {teacher.get(name)!r} in the store" for name in wrong)
        raise RunError(f"{run.folder} imitates another teacher than {url} holds ({shown}); give its own --store")
