"""Rounds of teacher labels on states that the student visits (DAgger, arXiv:1011.0686), for the simulated robot.

The student acts on training placements that no demonstration used; what it saw at every decision becomes a dataset; the
teacher labels it in a process of its own; training goes on with everything so far.
"""

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import rich.progress

from bridge import demonstrations, episodes, lanes, metaworld_tasks, scene, simulator, store
from bridge import embodiment as embodiments
from train import actor, checkpoint, config, plain, record, teacher, warm

CONDITIONS = simulator.Conditions(keep_views=True)


def train(options: config.Config, argv: list[str], once: Callable[[config.Config, list[str]], int]) -> int:
    """All rounds; `once` trains one run. The last round is the run in --out, those before it are in --out/rounds.

    Every part is skipped if it is there, so the same command with --resume goes on wherever it was stopped.
    """
    check(options)
    out, also = options.launch.out, options.also
    if (out / "rounds").exists() and not options.launch.resume:
        raise config.ConfigError(f"{out} holds rounds already: go on with --resume, or give another --out")
    for number in range(options.visits.rounds + 1):
        here = dataclasses.replace(part(options, number), also=also)
        folder = here.launch.out
        if finished(folder):
            unchanged(here)
        else:
            resume = (folder / "config.json").is_file()
            code = once(dataclasses.replace(here, launch=dataclasses.replace(here.launch, resume=resume)), argv)
            if code or not finished(folder):
                return code
        if number < options.visits.rounds:
            also = (*also, label(options, visit(options, folder, out / "visits" / str(number + 1), number)))
    return 0


def check(options: config.Config) -> None:
    """ConfigError where rounds cannot be run; nothing was trained yet."""
    if options.stage != "end-to-end":
        raise config.ConfigError("--rounds is for --stage end-to-end: the student must act as a whole")
    source = store.open(options.launch.store)
    if source.manifest.task != "robot" or source.embodiment().tag != demonstrations.TAG:
        raise config.ConfigError(
            "--rounds needs a simulator to act in, and there is one for the metaworld robot alone; for a robot of your "
            "own record what the student does, label it with teacher_torch.extract --stride 1, and give it with --also"
        )
    source.exact("image_tokens", "fused_tokens")  # a round's labels are exact, and both must be alike
    teacher.check(options.visits, source.manifest)


def part(options: config.Config, number: int) -> config.Config:
    """What one round trains: the first is the run that was asked for, later ones go on from the one before at half the
    rate."""
    out, rounds = options.launch.out, options.visits.rounds
    folder = out if number == rounds else out / "rounds" / str(number)
    here = dataclasses.replace(
        options, visits=config.Rounds(), launch=dataclasses.replace(options.launch, out=folder, stop_after=None)
    )
    if number == 0:
        return here
    recipe = dataclasses.replace(options.recipe, steps=options.visits.round_steps, lr=options.recipe.lr / 2)
    return dataclasses.replace(here, init=str(out / "rounds" / str(number - 1)), recipe=recipe)


def unchanged(here: config.Config) -> None:
    """ConfigError where the finished run in a part's folder is not the one that is asked for."""
    was, now = (plain.to_json(found) for found in (record.read(here.launch.out).config, here))
    if changes := plain.differences(was | {"launch": None}, now | {"launch": None}):
        raise config.ConfigError(
            f"{here.launch.out} holds another finished run ({'; '.join(changes)}): give another --out"
        )


def finished(folder: pathlib.Path) -> bool:
    """Whether a run's training is over."""
    slot = checkpoint.Slot(folder / "last")
    return slot.newest() is not None and bool(slot.progress().get("finished"))


def placements(number: int, count: int) -> range:
    """`count` seeds of a round, of the training split, that neither demonstrations nor another round use."""
    return metaworld_tasks.split_seeds("train", count, first=metaworld_tasks.DEMONSTRATED + number * count)


def visit(options: config.Config, run: pathlib.Path, folder: pathlib.Path, number: int) -> pathlib.Path:
    """Let the student of a run act, and write what it saw at every decision as a dataset."""
    dataset = folder / "dataset"
    if (dataset / "meta/metadata.json").is_file():
        return folder
    student, _ = checkpoint.load_student(run)
    body = embodiments.load(run / warm.EMBODIMENT)
    count = options.visits.round_episodes
    seeds = placements(number, count)
    jobs = [simulator.Job(task, seed) for task in tasks(options.launch.store) for seed in seeds]
    writer = episodes.create(dataset, demonstrations.SPEC, resume=True)
    with lanes.Lanes() as farm:
        policy = actor.StudentActor(student, warm.words_of(str(run)), body, rows=farm.count)
        left = jobs[len(writer.episodes) :]
        for episode in shown(simulator.run(policy, left, conditions=CONDITIONS, shared=farm), len(left)):
            add(writer, episode)
    writer.close()
    (folder / "success.json").write_text(json.dumps({"success": succeeded(writer), "episodes": len(jobs)}))
    embodiments.save(dataset / "meta/metadata.json", body)
    return folder


def tasks(url: str) -> list[str]:
    """The simulated tasks that a store's instructions ask for."""
    asked = {metaworld_tasks.asked_for(text) for text in store.open(url).manifest.extraction["instructions"]}
    return [task for task in metaworld_tasks.TASKS if task in asked]


def shown(found: Iterator[simulator.Episode], total: int) -> Iterator[simulator.Episode]:
    """The same episodes under a progress bar."""
    return iter(rich.progress.track(found, description="student acts", total=total))


def add(writer: episodes.Writer, episode: simulator.Episode) -> None:
    """One episode: a row per decision. Its action column repeats the hand at rest: nothing is demonstrated here."""
    views = episode.visited
    state = np.stack([view.state for view in views])
    still = np.zeros((len(views), 4), np.float32)
    writer.add(
        frames={camera: np.stack([view.frames[i] for view in views]) for i, camera in enumerate(scene.CAMERAS)},
        state={"hand": state[:, :3], "gripper": state[:, 3:]},
        action={"delta": still[:, :3], "gripper": still[:, 3:]},
        instruction=episode.instruction,
        labels={
            "objects": np.stack([view.objects.reshape(-1) for view in views]),
            "pixels": np.stack([view.pixels.reshape(-1) for view in views]),
        },
        extra={"split": "train", "task": episode.task, "seed": episode.seed, "success": episode.success},
    )


def succeeded(writer: episodes.Writer) -> float:
    """Share of the visited episodes that were solved."""
    return float(np.mean([row["success"] for row in writer.episodes]))


def label(options: config.Config, folder: pathlib.Path) -> str:
    """The store of a visited dataset, labelled by the teacher in another process."""
    base = store.open(options.launch.store).manifest
    done = subprocess.run(teacher.labels(options.visits, base, folder), check=False)
    if done.returncode:
        raise config.ConfigError(
            f"the teacher could not label {folder / 'dataset'} (see above); mend that, then go on with --resume"
        )
    return str(folder / "store")
