"""`python -m eval.explain`: an episode of an orchestrated student, decision by decision: where it looked, who mattered,
what was spent, whom it trusted; or of a student of grids one answer. `--replay` makes it again from its record."""

import dataclasses
import json
import pathlib
import sys
import zipfile
from typing import Any, Literal

import numpy as np
import tyro

from bridge import embodiment, scene
from eval import explain_grid, runs
from train import checkpoint, cycle
from train import config as train_config

FILE, INPUTS = "decisions.json", "inputs.npz"
USER_ERRORS = (
    runs.RunError, train_config.ConfigError, checkpoint.CheckpointError, scene.SimulatorError,
    embodiment.EmbodimentError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Explain one episode of an orchestrated student, or one answer of a student of grids: a page, and JSON per
    decision."""

    run: pathlib.Path | None = None
    """Run folder of a student with an H-module (--stage orchestration, or end-to-end from one), or that solves grids.
    """
    task: str = ""
    """Simulated task, default faucet-open; grids: a family of puzzles (default recolour) or the id of an ARC task."""
    goal: int = 0
    """Which placement of the validation split; grids: which of its episodes, or which test input of the ARC task."""
    condition: Literal["normal", "covered", "noise", "dropped", "light", "held-out"] = "normal"
    """What disturbs an episode."""
    atp: float = cycle.PLENTY
    """Budget of a decision; 1 ATP is 10 MFLOP. Default: all that it asks for."""
    price: float | None = None
    """What thinking costs, as in eval.benchmark. Default: the one that it was trained with."""
    out: pathlib.Path = pathlib.Path("runs/explain")
    """Folder for decisions.json, inputs.npz and index.html."""
    replay: bool = False
    """Make every decision that --out holds again, and compare."""


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when written (or replayed alike), 1 where a replay differs, 2 on bad input."""
    options = tyro.cli(Config, args=argv, prog="python -m eval.explain", description=Config.__doc__)
    try:
        return replay(options) if options.replay else explain(options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def explain(options: Config) -> int:
    """Make the decisions and write the folder."""
    if options.goal < 0 or not options.atp >= 0:
        raise runs.RunError(f"--goal {options.goal} --atp {options.atp}: neither may be negative, nor not a number")
    run = runs.priced(one(options.run), options.price)
    part = of(run)
    if options.price is not None and run.record.student.h_module is None:
        raise runs.RunError(f"--price {options.price}: {run.folder} has no H-module that weighs what thinking costs")
    found, arrays, page = part.explain(run, options.task or part.TASK, options.goal, options.condition, options.atp)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"run": str(run.folder), "goal": options.goal, "condition": options.condition}
    about |= {"atp": options.atp, "price": options.price}
    (options.out / FILE).write_text(json.dumps(about | found, indent=1), encoding="utf-8")
    np.savez_compressed(options.out / INPUTS, **arrays)
    (options.out / "index.html").write_text(page, encoding="utf-8")
    said = {"page": str(options.out / "index.html"), "success": found["success"], "decisions": len(found["decisions"])}
    print(json.dumps(said))
    return 0


def replay(options: Config) -> int:
    """Every record made once more, from what the student was given: all of it must come out alike."""
    about, given = recorded(options.out)
    run, found = runs.priced(one(pathlib.Path(about["run"])), about["price"]), about["decisions"]
    policy, again = of(run).again(run, about, given)
    if policy != about["policy"]:
        raise runs.RunError(f"{about['run']} was trained again since: explain anew")
    again = json.loads(json.dumps(list(again)))
    numbers = range(max(len(found), len(again)))
    differing = [i for i in numbers if i >= min(len(found), len(again)) or found[i] != again[i]]
    print(json.dumps({"decisions": len(found), "differing": differing}))
    return int(bool(differing))


def recorded(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `explain` wrote; RunError where it is not there or damaged."""
    if not (folder / FILE).is_file():
        raise runs.RunError(f"{folder / FILE} not found: explain an episode into --out first")
    try:
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        with (folder / INPUTS).open("rb") as file, np.load(file) as stored:
            given = {name: stored[name] for name in stored}
        kinds = {"run": str, "atp": (int, float), "price": (int, float, type(None)), "policy": str, "decisions": list}
        if wrong := [name for name, kind in kinds.items() if not isinstance(about[name], kind)]:
            raise ValueError(f"{wrong[0]} is {about[wrong[0]]!r}")
    except (KeyError, ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise runs.RunError(f"{folder}: the records are damaged ({error}): explain anew") from error
    return about, given


def of(run: runs.Run) -> Any:
    """Who explains a run of this kind; the simulator is needed for an episode alone."""
    if run.record.student.grid is not None:
        if run.record.config.stage == "components":
            raise runs.RunError(f"{run.folder} is a module alone: explain a student of --stage end-to-end from it")
        return explain_grid
    from eval import explain_episode

    return explain_episode


def one(folder: pathlib.Path | None) -> runs.Run:
    """The run to explain."""
    return runs.load([folder or runs.newest()], "last")[0]


if __name__ == "__main__":
    sys.exit(main())
