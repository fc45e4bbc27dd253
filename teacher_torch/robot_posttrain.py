"""Post-train a teacher on robot demonstrations, then measure what it can do."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shlex
from typing import Any

import numpy as np
import rich.console
import rich.table
import torch
import transformers

from bridge import embodiment as embodiments
from bridge import episodes, lerobot_check, metaworld_tasks, stored_embodiment
from bridge.embodiment import Embodiment
from teacher_torch import (
    augment,
    phases,
    provenance,
    request,
    robot_inputs,
    robot_measure,
    robot_request,
    robot_samples,
    robot_trainees,
    standin,
)
from teacher_torch.actor import Actor
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot.model import Groot
from teacher_torch.robot_lesson import Options
from teacher_torch.tracking import Display, begin

STAND_IN = {
    "what": "GR00T N1.5's classes at a size that two cores can train. The vision tower learned from simulator labels "
    "where hand and object are (the stand-in for what SigLIP's pre-training brings; the labels are never an input), "
    "then everything learned scripted demonstrations by GR00T's flow matching.",
    "licence": "Apache-2.0",
}


def train(options: Options, argv: list[str]) -> tuple[pathlib.Path, dict[str, Any]]:
    """Train what the options ask for, or go on with it; the folder and what was written about it."""
    dataset = robot_request.open_dataset(options.dataset)
    dataset.check(deep=False)
    teacher = None if options.own else standin.resolve(options.teacher)
    folder = options.out or standin.HOME / (
        options.teacher if options.own else f"{pathlib.Path(teacher.id).name}-robot"
    )
    body, where = make_body(options, dataset, teacher)
    lerobot_check.belongs(where, body, dataset, used(dataset))
    settings = options.settings(options.teacher if options.own else teacher.digest, digest(dataset))
    settings["embodiment"] = stored_embodiment.digest(stored_embodiment.text(body))
    kind = provenance.STAND_IN if options.own else teacher.provenance
    if done := begin(folder, provenance.account_file(folder, kind), settings, resume=options.resume):
        return folder, done
    model, words = make_model(options, teacher, dataset, body)
    samples, held_out = (
        robot_samples.Samples(dataset, body, split, stride=options.stride, cache_gib=options.cache_gib)
        for split in ("train", "validation")
    )
    trainee, plan = make_trainee(options, robot_inputs.Preparer(model.config, body, words), model, samples)
    run = phases.Run(folder, trainee.modules, plan, settings=settings, save_every=options.save_every)
    if options.resume:
        run.resume()
    display = Display({phase.name: phase.steps for phase in plan})
    with display.progress:
        run.train(display.advance)
    finish_weights(model, words, body, folder)
    content = {
        "id": options.teacher,
        "provenance": kind,
        "command": f"python -m teacher_torch.posttrain {shlex.join(argv)}".strip(),
        "settings": settings,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "measured": measure(options, Actor(model.eval(), body, words), held_out, dataset),
        "measured_on": f"validation: {len(held_out.episodes)} recorded episodes, {options.episodes} rollouts a task",
    }
    about = STAND_IN if options.own else descent(teacher)
    return folder, conclude(folder, content | about)


def descent(teacher: standin.Teacher) -> dict[str, Any]:
    """What a fine-tuned checkpoint owes to the one it came from."""
    return {"licence": teacher.licence, "from": {"id": teacher.id, "digest": teacher.digest}}


def used(dataset: episodes.Dataset) -> list[int]:
    """Indices of the episodes that are trained and measured on, in order."""
    splits = dataset.splits()
    return sorted([*splits["train"], *splits["validation"]])


def digest(dataset: episodes.Dataset) -> str:
    """Of what is trained and measured on: folder-independent, the rows of every training and validation episode."""
    found = hashlib.sha256()
    for index in used(dataset):
        episode = dataset.episode(index)
        found.update(f"{episode.index} {episode.length} {episode.instruction} {episode.split}".encode())
        rows = dataset.rows(episode.index)
        for name in sorted(rows):
            found.update(np.ascontiguousarray(rows[name]).tobytes())
    return found.hexdigest()


def make_body(
    options: Options, dataset: episodes.Dataset, teacher: standin.Teacher | None
) -> tuple[Embodiment, pathlib.Path]:
    """The embodiment, as the teacher will see it, and its file: the named one; else the checkpoint's own of the same
    tag, whose statistics it was trained with; else the dataset's. A stand-in sees whole views at its own tile size."""
    theirs = options.metadata or dataset.folder / "meta/metadata.json"
    body = embodiments.load(options.metadata) if options.metadata else dataset.embodiment
    if teacher is not None:
        own = teacher.folder / robot_request.METADATA
        known = not options.metadata and own.is_file() and body.tag in json.loads(own.read_text())
        return (embodiments.load(own, body.tag), own) if known else (body, theirs)
    return standin.seen_whole(body), theirs


def make_model(
    options: Options, teacher: standin.Teacher | None, dataset: episodes.Dataset, body: Embodiment
) -> tuple[Groot, tokenizer.Tokenizer]:
    """An untrained stand-in whose vocabulary is the dataset's words, or the checkpoint to fine-tune."""
    if teacher is None:
        views = [1] * len(body.transform.video_keys)
        said = {episode.instruction for episode in dataset.episodes} | known_phrasings(dataset)
        words = standin.cut_tokenizer(inputs.prompt(text, views, 1) for text in sorted(said))
        torch.manual_seed(options.seed)
        return Groot(standin.make_robot_config(words)), words
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    model = checkpoint.load(teacher.folder, dtype=torch.float32, device=device)
    return model, request.load_tokenizer(options.tokenizer, teacher)


def known_phrasings(dataset: episodes.Dataset) -> set[str]:
    """All phrasings of the simulated tasks, the held-out ones too: their words must be in the vocabulary."""
    if dataset.layout.robot_type != "metaworld":
        return set()
    return {text for task in metaworld_tasks.TASKS.values() for text in (*task.phrasings, *task.held_out)}


def make_trainee(
    options: Options, preparer: robot_inputs.Preparer, model: Groot, samples: robot_samples.Samples
) -> tuple[robot_trainees.FlowTrainee, list[phases.Phase]]:
    """What is trained, and in which phases."""
    jitter = augment.Jitter() if options.jitter else augment.Jitter(0, 0, 0, 0)
    recipe = robot_trainees.Recipe(options.draws, jitter, options.seed, options.mask_padding)
    preset = options.recipe()
    if options.own:
        trainee = robot_trainees.StandInTrainee(model, preparer, samples, recipe)
        return trainee, trainee.courses(preset.vision, preset.actions)
    tuned = robot_trainees.FlowTrainee(model, preparer, samples, recipe, tune=options.tune)
    return tuned, tuned.phases(preset.actions)


def finish_weights(model: Groot, words: tokenizer.Tokenizer, body: Embodiment, folder: pathlib.Path) -> None:
    """Round the weights to bfloat16, as they are kept, and write weights, words and embodiment."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    if isinstance(words, tokenizer.Renumbered):
        words.save(folder)
    checkpoint.save(model, folder, dtype=torch.bfloat16)
    embodiments.save(folder / robot_request.METADATA, body)


def measure(
    options: Options, actor: Actor, held_out: robot_samples.Samples, dataset: episodes.Dataset
) -> dict[str, float]:
    """On validation episodes, and closed loop where the robot is the simulated one."""
    found = robot_measure.demonstrated(actor, held_out)
    if options.episodes and dataset.layout.robot_type == "metaworld":
        found |= robot_measure.success(actor, metaworld_tasks.TASKS, episodes=options.episodes, split="validation")
    return found


def conclude(folder: pathlib.Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write the account, which makes the run a finished one."""
    provenance.account(folder, content)
    (folder / phases.SNAPSHOT).unlink(missing_ok=True)
    return content


def show(measured: dict[str, float]) -> None:
    """Print what was measured."""
    rows = rich.table.Table("validation", "value")
    for name, value in measured.items():
        rows.add_row(name, f"{value:.3f}")
    rich.console.Console().print(rows)
