"""`python -m eval.explain`: an episode of an orchestrated student, decision by decision: where it looked, who mattered,
what was spent, whom it trusted. `--replay` makes every decision again from its record."""

import dataclasses
import json
import pathlib
import sys
import zipfile
from typing import Literal

import numpy as np
import tyro

from bridge import conditions, embodiment, lanes, metaworld_tasks, scene, simulator
from eval import control, decisions, explain_page, runs
from train import checkpoint, cycle
from train import config as train_config

FILE, INPUTS = "decisions.json", "inputs.npz"
USER_ERRORS = (
    runs.RunError, train_config.ConfigError, checkpoint.CheckpointError, scene.SimulatorError,
    embodiment.EmbodimentError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Explain one episode of an orchestrated student: a page and JSON per decision."""

    run: pathlib.Path | None = None
    """Run folder of a student with an H-module (--stage orchestration, or end-to-end from one)."""
    task: str = "faucet-open"
    """Simulated task."""
    goal: int = 0
    """Which placement of the validation split."""
    condition: Literal["normal", "covered", "noise", "dropped", "light", "held-out"] = "normal"
    """What disturbs it."""
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
    """Run the episode and write the folder."""
    if options.task not in metaworld_tasks.TASKS:
        raise runs.RunError(f"--task {options.task}: there are {', '.join(metaworld_tasks.TASKS)}")
    if options.goal < 0 or not options.atp >= 0:
        raise runs.RunError(f"--goal {options.goal} --atp {options.atp}: neither may be negative, nor not a number")
    policy = control.orchestrated(
        runs.priced(one(options.run), options.price), rows=1, will=cycle.Will(atp=options.atp)
    )
    kept: list[tuple[simulator.Query, dict[str, np.ndarray], cycle.Decision]] = []
    policy.note = lambda *told: kept.append(told)
    goal = metaworld_tasks.split_seeds("validation", options.goal + 1)[options.goal]
    job = simulator.Job(options.task, goal, conditions.instruction(options.condition, options.task, goal))
    with lanes.Lanes(1, 1) as farm:
        (episode,) = simulator.run(policy, [job], conditions=conditions.cameras(options.condition), shared=farm)
    records = [
        decisions.record(number, given, said, policy, instruction=job.instruction)
        for number, (_, given, said) in enumerate(kept)
    ]
    write(options, episode, records, [given for _, given, _ in kept], control.digest(policy))
    pictures = [given["video"][0, 0] for _, given, _ in kept]
    page = explain_page.render(
        records, pictures, task=options.task, condition=options.condition, success=episode.success
    )
    (options.out / "index.html").write_text(page, encoding="utf-8")
    print(json.dumps({"page": str(options.out / "index.html"), "success": episode.success, "decisions": len(records)}))
    return 0


def write(
    options: Config, episode: simulator.Episode, records: list[dict], given: list[dict[str, np.ndarray]], policy: str
) -> None:
    """The records, and all that the student was given, from which each decision can be made again."""
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"run": str(options.run), "task": options.task, "goal": episode.seed, "condition": options.condition}
    about |= {"policy": policy, "price": options.price}
    about |= {"atp": options.atp, "success": episode.success, "steps": episode.steps, "decisions": records}
    (options.out / FILE).write_text(json.dumps(about, indent=1), encoding="utf-8")
    np.savez_compressed(
        options.out / INPUTS, **{name: np.concatenate([one[name] for one in given]) for name in given[0]}
    )


def replay(options: Config) -> int:
    """Every record made once more, from what the student was given: all of it must come out alike."""
    about, given = recorded(options.out)
    run = runs.priced(one(pathlib.Path(about["run"])), about["price"])
    policy = control.orchestrated(run, rows=1, will=cycle.Will(atp=about["atp"]))
    if control.digest(policy) != about["policy"]:
        raise runs.RunError(f"{about['run']} was trained again since: explain the episode anew")
    found, differing = about["decisions"], []
    for number in range(len(given["trust"])):
        row = {name: value[number : number + 1] for name, value in given.items()}
        said = policy.answer(row)
        instruction = found[number]["instruction"] if number < len(found) else ""
        again = decisions.record(number, row, said, policy, instruction=instruction)
        if number >= len(found) or json.loads(json.dumps(again)) != found[number]:
            differing.append(number)
    differing += range(len(given["trust"]), len(found))
    print(json.dumps({"decisions": len(found), "differing": differing}))
    return int(bool(differing))


def recorded(folder: pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What `write` wrote; RunError where it is not there or damaged."""
    if not (folder / FILE).is_file():
        raise runs.RunError(f"{folder / FILE} not found: explain an episode into --out first")
    try:
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        with np.load(folder / INPUTS) as stored:
            given = {name: stored[name] for name in stored}
        known = {"run", "atp", "price", "policy", "decisions"} <= set(about) and "trust" in given
        if not known or not all("instruction" in each for each in about["decisions"]):
            raise ValueError("something is missing")
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise runs.RunError(f"{folder}: the records are damaged ({error}): explain the episode anew") from error
    return about, given


def one(folder: pathlib.Path | None) -> runs.Run:
    """The run to explain."""
    return runs.load([folder or runs.newest()], "last")[0]


if __name__ == "__main__":
    sys.exit(main())
