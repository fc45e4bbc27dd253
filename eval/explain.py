"""`python -m eval.explain`: an episode of an orchestrated student, decision by decision: where it looked, who mattered,
what was spent, whom it trusted; or of a student of grids one answer. `--replay` makes it again from its record."""

import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np
import tyro

from bridge import scene
from eval import explain_grid, runs
from train import checkpoint, cycle
from train import config as train_config

FILE, INPUTS = "decisions.json", "inputs.npz"
USER_ERRORS = (runs.RunError, train_config.ConfigError, checkpoint.CheckpointError, scene.SimulatorError)


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
    condition: str = "normal"
    """What disturbs it: normal, covered, noise, dropped, light, held-out, swapped."""
    atp: float = cycle.PLENTY
    """Budget of a decision; 1 ATP is 10 MFLOP. Default: all that it asks for."""
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
    run = one(options.run)
    part = of(run)
    found, arrays, page = part.explain(run, options.task or part.TASK, options.goal, options.condition, options.atp)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"run": str(run.folder), "goal": options.goal, "condition": options.condition, "atp": options.atp}
    (options.out / FILE).write_text(json.dumps(about | found, indent=1), encoding="utf-8")
    np.savez_compressed(options.out / INPUTS, **arrays)
    (options.out / "index.html").write_text(page, encoding="utf-8")
    said = {"page": str(options.out / "index.html"), "success": found["success"], "decisions": len(found["decisions"])}
    print(json.dumps(said))
    return 0


def replay(options: Config) -> int:
    """Every recorded decision once more, from what it was given."""
    if not (options.out / FILE).is_file():
        raise runs.RunError(f"{options.out / FILE} not found: explain an episode into --out first")
    about = json.loads((options.out / FILE).read_text(encoding="utf-8"))
    with np.load(options.out / INPUTS) as stored:
        given = dict(stored)
    run = one(pathlib.Path(about["run"]))
    differing = of(run).replay(run, about, given)
    print(json.dumps({"decisions": len(about["decisions"]), "differing": differing}))
    return int(bool(differing))


def of(run: runs.Run) -> Any:
    """Who explains a run of this kind; the simulator is needed for an episode alone."""
    if run.record.student.grid is not None:
        return explain_grid
    from eval import explain_episode

    return explain_episode


def one(folder: pathlib.Path | None) -> runs.Run:
    """The run to explain."""
    return runs.load([folder or runs.newest()], "last")[0]


if __name__ == "__main__":
    sys.exit(main())
