"""`python -m teacher_torch.closed_loop`: a teacher acts in the simulator; one line of outcome per episode."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import rich.progress
import torch
import tyro

from bridge import conditions, lanes, lerobot_video, metaworld_tasks, outcomes, scene, simulator
from bridge import embodiment as embodiments
from bridge.lerobot_files import DatasetError
from teacher_torch import provenance, request, robot_inputs, standin
from teacher_torch.actor import Actor
from teacher_torch.groot import checkpoint
from teacher_torch.groot.checkpoint import CheckpointError
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.tokenizer import TokenizerError

NAME = "teacher"
USER_ERRORS = (
    *(FileNotFoundError, CheckpointError, ConfigError, TokenizerError, embodiments.EmbodimentError, DatasetError),
    *(robot_inputs.RobotInputError, scene.SimulatorError, provenance.ProvenanceError, ValueError),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Let a teacher act in Meta-World, closed loop. Outcomes that --out holds already are not run again."""

    teacher: str = "standin-robot"
    """A stand-in, a checkpoint folder or a hub id; its own metadata.json says how it sees and acts."""
    tasks: tuple[str, ...] = tuple(metaworld_tasks.TASKS)
    """Which tasks."""
    episodes: int = 50
    """Episodes of each task, on the split's first placements."""
    split: Literal["train", "validation", "test"] = "validation"
    """Whose placements."""
    condition: Literal["normal", "blind", "held-out", "swapped", "noise", "dropped", "light"] = "normal"
    """blind: the mean picture of the task; held-out: phrasings never trained on; swapped: asked for the look-alike
    task; the others disturb the cameras."""
    out: pathlib.Path = pathlib.Path("runs/closed-loop/episodes.jsonl")
    """Where the outcomes are written, one line per episode."""
    videos: pathlib.Path | None = None
    """Folder for videos TASK-SEED.mp4 of --video-seeds."""
    video_seeds: tuple[int, ...] = ()
    """Placements to film."""
    processes: int = lanes.PROCESSES
    """Simulator processes."""
    steps: int | None = None
    """Integration steps. Default: the model's own."""
    threads: int = 2
    """CPU threads of the teacher."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto is a GPU where there is one."""
    tokenizer: str | None = None
    """Folder or hub id of GR00T's tokenizer, or packaged. Default: the teacher's own, or the hub's."""
    digest: str = ""
    """Refuse any other teacher than the one of this digest, before anything runs."""


def load_actor(options: Options) -> tuple[Actor, standin.Teacher]:
    """The teacher as a policy, with its own embodiment, and what it is."""
    teacher = standin.resolve(options.teacher)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    model = checkpoint.load(teacher.folder, dtype=torch.float32, device=device)
    words = request.load_tokenizer(options.tokenizer, teacher)
    steps = options.steps or model.config.head.steps
    body = embodiments.load(teacher.folder)
    return Actor(model, body, words, steps=steps), teacher


def jobs(options: Options) -> list[simulator.Job]:
    """The episodes that are asked for, each with its words."""
    seeds = metaworld_tasks.split_seeds(options.split, options.episodes)
    return conditions.jobs(options.condition, options.tasks, seeds)


def run(options: Options) -> None:
    """Run what is missing and write it, line by line."""
    actor, teacher = load_actor(options)
    if options.digest not in ("", teacher.digest):
        raise ValueError(
            f"--teacher {options.teacher} is {teacher.digest[:12]}, not {options.digest[:12]}: name that one"
        )
    ledger = outcomes.Ledger(options.out)
    ledger.claim(NAME, None, teacher.digest)
    left = ledger.missing(NAME, None, options.condition, jobs(options))
    how = conditions.cameras(options.condition)
    with lanes.Lanes(options.processes) as farm:
        for episode in progress(simulator.run(actor, left, conditions=how, shared=farm), len(left)):
            ledger.add(outcome(episode, condition=options.condition, teacher=teacher))
        if options.videos:
            film(options, actor, farm, how)


def outcome(episode: simulator.Episode, *, condition: str, teacher: standin.Teacher) -> outcomes.Outcome:
    """One line of the ledger."""
    return outcomes.Outcome(
        policy=NAME,
        digest=teacher.digest,
        condition=condition,
        task=episode.task,
        goal_seed=int(episode.seed),
        student_seed=None,
        instruction=episode.instruction,
        success=bool(episode.success),
        steps=int(episode.steps),
    )


def film(options: Options, actor: Actor, farm: lanes.Lanes, how: simulator.Conditions) -> None:
    """Write a video of every task at the chosen placements, its views side by side."""
    chosen = conditions.jobs(options.condition, options.tasks, options.video_seeds)
    for episode in simulator.run(actor, chosen, conditions=dataclasses.replace(how, record=True), shared=farm):
        options.videos.mkdir(parents=True, exist_ok=True)
        frames = episode.frames.transpose(0, 2, 1, 3, 4).reshape(len(episode.frames), scene.SIZE, -1, 3)
        lerobot_video.encode(options.videos / f"{episode.task}-{episode.seed}.mp4", frames, fps=scene.FPS)


def progress(found: Iterator[simulator.Episode], total: int) -> Iterator[simulator.Episode]:
    """The same episodes, with a bar and the share solved beside it."""
    solved = 0
    columns = (*rich.progress.Progress.get_default_columns(), "{task.fields[solved]}")
    with rich.progress.Progress(*columns) as bars:
        bar = bars.add_task("episodes", total=total, solved="")
        for count, episode in enumerate(found, start=1):
            solved += episode.success
            bars.update(bar, advance=1, solved=f"{solved}/{count} solved")
            yield episode


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = tyro.cli(Options, args=argv, prog="python -m teacher_torch.closed_loop")
    torch.set_num_threads(options.threads)
    try:
        run(options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = [json.loads(text) for text in options.out.read_text(encoding="utf-8").splitlines()]
    mine = [line for line in lines if line["policy"] == "teacher" and line["condition"] == options.condition]
    for task in options.tasks:
        wins = [line["success"] for line in mine if line["task"] == task]
        print(f"{task:24} {sum(wins):4d} / {len(wins)}")
    print(f"{options.condition}: {sum(line['success'] for line in mine)} / {len(mine)} episodes solved; {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
