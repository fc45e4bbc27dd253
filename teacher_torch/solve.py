"""`python -m teacher_torch.solve`: a teacher's probe answers ARC tasks; one grid per query, in ARC Prize form."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import rich.progress
import torch
import tyro

from bridge import arc
from teacher_torch import arc_batches, decoder, identify, posttrain, provenance, records, request, standin
from teacher_torch.groot import checkpoint
from teacher_torch.groot.checkpoint import CheckpointError
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.tokenizer import TokenizerError
from teacher_torch.plan import PlanError

BATCH = 4
USER_ERRORS = (
    *(PlanError, ConfigError, CheckpointError, TokenizerError, provenance.ProvenanceError),
    *(FileNotFoundError, ValueError),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Let the grid decoder over a teacher's features (its probe) answer published ARC tasks."""

    teacher: str = "standin-arc"
    """A stand-in, a checkpoint folder or a hub id."""
    probe: pathlib.Path | None = None
    """Folder of its decoder. Default: the stand-in's own, or where `teacher_torch.posttrain --teacher` puts it."""
    dataset: Literal["arc1", "arc2"] = "arc1"
    """Which published evaluation tasks."""
    tasks: tuple[str, ...] = ()
    """Their ids; default all of the test split."""
    out: pathlib.Path = pathlib.Path("runs/probes/answers.json")
    """Where the answers are written, in one piece."""
    digest: str = ""
    """Refuse any other teacher than the one of this digest."""
    max_tiles: int = 1
    """Tiles of a frame at most, as the probe was trained."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto is a GPU where there is one."""
    tokenizer: str | None = None
    """Folder or hub id of GR00T's tokenizer, or packaged. Default: the teacher's own, or the hub's."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = tyro.cli(Options, args=argv, prog="python -m teacher_torch.solve", description=Options.__doc__)
    try:
        found = solve(options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_suffix(".partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    os.replace(partial, options.out)
    print(f"{len(found['answers'])} tasks answered: {options.out}")
    return 0


def solve(options: Options) -> dict[str, Any]:
    """{"teacher": what it is, "answers": {task id: [{"attempt_1": grid}, ...]}}; one of USER_ERRORS where it cannot."""
    identify.check_device(options.device)
    teacher = standin.resolve(options.teacher)
    if options.digest not in ("", teacher.digest):
        raise ValueError(f"--teacher {teacher.id} is {teacher.digest[:12]}, not {options.digest[:12]}: name that one")
    tasks = chosen(options)
    own = (teacher.folder / decoder.CONFIG).is_file()
    grids = decoder.load(options.probe or (teacher.folder if own else posttrain.default_folder(options.teacher)))
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if teacher.provenance == provenance.REAL else torch.float32
    model = checkpoint.load(teacher.folder, dtype=dtype, device=device, features_only=True)
    words = request.load_tokenizer(options.tokenizer, teacher)
    layout = records.Layout(model.config, words, max_tiles=options.max_tiles)
    grids = grids.to(device)
    asked = [(task.id, episode) for task in tasks for episode in arc_batches.published([task])]
    answers: dict[str, list[dict[str, list]]] = {}
    for first in rich.progress.track(range(0, len(asked), BATCH), description="queries"):
        part = asked[first : first + BATCH]
        with torch.inference_mode():
            said = grids.predict(records.read(model, layout, [episode for _, episode in part]))
        for (name, _), grid in zip(part, said, strict=True):
            answers.setdefault(name, []).append({"attempt_1": np.asarray(grid.cpu()).tolist()})
    about = {"id": teacher.id, "digest": teacher.digest, "provenance": teacher.provenance}
    return {"teacher": about, "dataset": options.dataset, "answers": answers}


def chosen(options: Options) -> list[arc.Task]:
    """The tasks that are asked for; ValueError naming the first that is not there."""
    known = {task.id: task for task in arc.splits(int(options.dataset[-1]))["test"]}
    if missing := [name for name in options.tasks if name not in known]:
        raise ValueError(f"--tasks {missing[0]}: not among the {len(known)} evaluation tasks of {options.dataset}")
    return [known[name] for name in options.tasks or known]


if __name__ == "__main__":
    sys.exit(main())
