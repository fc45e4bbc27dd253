"""Record scripted Meta-World demonstrations as a LeRobot dataset: the data that a teacher is post-trained on."""

from __future__ import annotations

import argparse
import math
import pathlib
import sys

import numpy as np
import rich.progress

from bridge import demonstration, embodiment, episodes, lanes, metaworld_tasks, scene
from bridge import transform as transforms
from bridge.lerobot_files import DatasetError

TAG = "metaworld"
HOME = pathlib.Path("runs/datasets/metaworld")
HOW = ("noise", "pushes")
"""Settings of a demonstration that all of a dataset share."""
SPEC = episodes.Spec(
    fps=scene.FPS,
    videos={camera: (scene.SIZE, scene.SIZE) for camera in scene.CAMERAS},
    state=scene.STATE,
    action=scene.ACTION,
    labels={"objects": 3 * len(scene.OBJECTS), "pixels": 2 * len(scene.OBJECTS) * len(scene.CAMERAS)},
    robot_type=TAG,
    relative=("action.delta",),
)


def jobs(
    tasks: list[str], *, train: int, validation: int, test: int, noise: float, pushes: float
) -> list[tuple[str, demonstration.Job]]:
    """(split, job) of every demonstration, seed by seed. ValueError for settings that make none."""
    if train > metaworld_tasks.DEMONSTRATED:
        raise ValueError(f"--episodes is {train}: at most {metaworld_tasks.DEMONSTRATED}, the rest is for students")
    if not 0 <= noise < math.inf or not 0 <= pushes <= 1:
        raise ValueError(f"--noise is {noise}, --pushes {pushes}: expected 0 or more, and a chance in 0 .. 1")
    return [
        (split, demonstration.Job(task, seed, noise=noise, pushes=pushes))
        for split, count in (("train", train), ("validation", validation), ("test", test))
        for seed in metaworld_tasks.split_seeds(split, count)
        for task in tasks
    ]


def add(writer: episodes.Writer, split: str, demo: demonstration.Demonstration) -> None:
    """Write one demonstration as an episode."""
    job, n = demo.job, len(demo.action)
    hand, gripper = np.split(demo.state, [3], axis=1)
    delta, grip = np.split(demo.action, [3], axis=1)
    writer.add(
        frames={camera: demo.frames[:, view] for view, camera in enumerate(scene.CAMERAS)},
        state={"hand": hand, "gripper": gripper},
        action={"delta": delta, "gripper": grip},
        instruction=metaworld_tasks.instruction(job.task, job.seed),
        labels={"objects": demo.objects.reshape(n, -1), "pixels": demo.pixels.reshape(n, -1)},
        extra={"split": split, "task": job.task, "seed": job.seed, "success": demo.success}
        | {name: getattr(job, name) for name in HOW},
    )


def record(folder: pathlib.Path, work: list[tuple[str, demonstration.Job]], *, processes: int, resume: bool) -> None:
    """Make what is missing of the dataset, then its metadata; a dataset may so be made longer later."""
    writer = episodes.create(folder, SPEC, resume=resume)
    how = {name: getattr(work[0][1], name) for name in HOW} if work else {}
    if other := [row for row in writer.episodes if any(row.get(name, value) != value for name, value in how.items())]:
        was = {name: other[0][name] for name in HOW}
        raise DatasetError(f"{folder} was recorded with {was}, not {how}: give another --out, or the same settings")
    there = {(row["split"], row["task"], row["seed"]) for row in writer.episodes}
    left = [(split, job) for split, job in work if (split, job.task, job.seed) not in there]
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    with rich.progress.Progress(*columns) as progress, lanes.Lanes(processes, 1) as farm:
        bar = progress.add_task("demonstrations", total=len(work), completed=len(work) - len(left))
        made = farm.demonstrations([job for _, job in left])
        for (split, _), demo in zip(left, made, strict=True):
            add(writer, split, demo)
            progress.advance(bar)
    writer.close()
    dataset = episodes.open(folder)
    keys = [f"{group}.{key}" for group, widths in (("state", SPEC.state), ("action", SPEC.action)) for key in widths]
    transform = transforms.official(TAG, tuple(scene.CAMERAS), keys)
    embodiment.save(folder / "meta/metadata.json", dataset.measure(TAG, transform))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        tasks = [name for name in options.tasks if metaworld_tasks.find(name)]
        work = jobs(
            tasks,
            train=options.episodes,
            validation=options.validation,
            test=options.test,
            noise=options.noise,
            pushes=options.pushes,
        )
        record(options.out, work, processes=options.processes, resume=not options.no_resume)
    except (DatasetError, scene.SimulatorError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(work)} episodes; look at it with python -m bridge.episodes {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bridge.demonstrations",
        description=f"{__doc__} Stop it at any moment and run it again: it goes on after the last whole episode.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_option = parser.add_argument
    add_option("--out", type=pathlib.Path, default=HOME, help="folder of the dataset")
    add_option("--tasks", nargs="+", default=list(metaworld_tasks.TASKS), metavar="TASK", help="which tasks")
    add_option("--episodes", type=int, default=80, help="training episodes of each task")
    add_option("--validation", type=int, default=8, help="validation episodes of each task")
    add_option("--test", type=int, default=8, help="test episodes of each task, which no training reads")
    add_option("--noise", type=float, default=0.2, help="standard deviation of the noise on executed displacements")
    add_option("--pushes", type=float, default=0.05, help="chance per action of a random push")
    add_option("--processes", type=int, default=lanes.PROCESSES, help="simulators at work")
    add_option("--no-resume", action="store_true", help="refuse a folder that holds a dataset already")
    return parser


if __name__ == "__main__":
    sys.exit(main())
