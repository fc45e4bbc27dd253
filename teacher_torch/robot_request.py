"""Extraction from a robot dataset: options, the embodiment, and what both come to."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal

import torch

from bridge import embodiment as embodiments
from bridge import episodes, lerobot_check, stored_embodiment
from bridge.embodiment import Embodiment
from bridge.manifest import Manifest
from bridge.store import Writer
from teacher_torch import plan, provenance, request, robot_plan, robot_records, robot_samples, standin
from teacher_torch.groot import inputs, tokenizer
from teacher_torch.groot.config import GrootConfig
from teacher_torch.robot_inputs import Preparer
from teacher_torch.robot_plan import Shapes, Words
from teacher_torch.robot_source import Source

DATASET = pathlib.Path("runs/datasets/metaworld")
METADATA = pathlib.Path("experiment_cfg/metadata.json")
FAILS = 0.5  # a teacher below this success fails its task
ROOM = 8  # least state and action values of a random teacher


@dataclasses.dataclass(frozen=True)
class Options(request.Options):
    """Run a teacher over observations of robot episodes (a LeRobot dataset) and write what it sees, and how it would
    act, to a store. Stop it at any moment and run it again: it goes on after the last committed group and ends with the
    same bytes as an uninterrupted run. With --stride 1 it labels every row of a dataset, such as of states that a
    student visited."""

    task: Literal["robot"] = "robot"
    """What the records are of: robot, or arc, which has options of its own."""
    dataset: pathlib.Path = DATASET
    """Folder of a LeRobot dataset; python -m bridge.demonstrations records one."""
    limit: int | None = None
    """Most episodes of each split, the first by index. Default: all; 4 where no teacher is named."""
    features: tuple[str, ...] | None = None
    """Names of features. Default: all of records, frames and image tokens but image_features; there are also
    backbone_features, adapted_features, input_ids, attention_mask and image_mask of every prompt position."""
    stride: int = 4
    """Every so many rows of an episode are a record, from row 0 on."""
    draws: int = 8
    """Noise draws, and so action chunks, of every record."""
    steps: int | None = None
    """Integration steps of a chunk. Default: the teacher's own."""
    metadata: pathlib.Path | None = None
    """Embodiment file whose statistics normalise. Default: the teacher's own experiment_cfg/metadata.json, else the
    dataset's."""
    embodiment: str | None = None
    """Which embodiment of a file that holds several."""
    seed: int = 0
    """Of the noise, and of the weights of a random teacher."""


class Setting(request.Setting):
    """What the options come to."""

    options: Options

    def __init__(self, options: Options) -> None:
        if options.seed < 0:
            raise plan.PlanError(f"--seed {options.seed}: expected 0 or more")
        data = open_dataset(options.dataset)
        found = request.find_teacher(options.teacher, options.task)
        body, where = choose_body(options, found, data)
        lerobot_check.fits(where, body, data.modality)
        if found is None:
            body, words, config = untrained(body, data)
            super().__init__(
                options, request.random_teacher(config, options.seed), seed=options.seed, limit=options.limit
            )
        else:
            super().__init__(options, found, seed=options.seed, limit=options.limit)
            words = request.load_tokenizer(options.tokenizer, found)
        self.body, config = body, self.teacher.config
        robot_plan.check_body(config, body)
        preparer = Preparer(config, body, words)
        self.records = robot_records.choose(data, options.splits, limit=self.limit, stride=options.stride)
        self.instructions = sorted(set(self.records.instruction))
        self.prompts = Words(preparer)
        steps = config.head.steps if options.steps is None else options.steps
        self.shapes = measure(data, body, draws=options.draws, steps=steps)
        self.features = robot_plan.chosen(config, self.shapes, options.features)
        if "text_features" in self.features:
            for text in self.instructions:
                self.prompts.span(text)
        self._dataset, self.digest = data, robot_records.check(data, body, self.records, where)
        self._body_text = stored_embodiment.text(body)
        seen = robot_records.Observations(data, body, self.records)
        self.source = Source(
            seen, preparer, self.prompts, shapes=self.shapes, texts=self.instructions, seed=options.seed
        )

    @property
    def dataset(self) -> str:
        return self._dataset.folder.resolve().name

    @property
    def success(self) -> float | None:
        """The teacher's own success rate, where its post-training measured it."""
        known = {} if self.teacher.id == request.RANDOM else provenance.measured(self.teacher.folder)
        return known.get("success.mean")

    def warnings(self) -> list[str]:
        """A teacher that is not known to do its job."""
        if self.success is not None and self.success >= FAILS:
            return []
        known = f"success {self.success:.0%}" if self.success is not None else "success never measured"
        return [
            f"distillation from a teacher that fails its task ({known}): whatever learns from these features learns "
            "that. Measure it (python -m teacher_torch.posttrain --task robot writes success.mean), or train it longer"
        ]

    def manifest(self, batch_size: int) -> Manifest:
        """The plan with a batch size."""
        lengths = {text: self.prompts.length(text) for text in self.instructions}
        return robot_plan.make_manifest(
            self.teacher,
            self.records,
            lengths=[lengths[text] for text in self.records.instruction],
            views=self.shapes.views,
            features=self.features,
            extraction=self._extraction(batch_size),
            group_records=self.options.group,
        )

    def _extraction(self, batch_size: int) -> dict[str, Any]:
        head = self.teacher.config.head
        return {
            "dataset": self.dataset,
            "dataset_digest": self.digest,
            "dtype": self.dtype,
            "device": torch.device(self.device).type,
            "batch_size": batch_size,
            "seed": self.options.seed,
            "stride": self.options.stride,
            "draws": self.shapes.draws,
            "steps": self.shapes.steps,
            "noise_shape": [self.shapes.draws, head.horizon, head.action_dim],
            "embodiment": self.body.tag,
            stored_embodiment.DIGEST: stored_embodiment.digest(self._body_text),
            "views": list(self.body.transform.video_keys),
            "state": [list(key) for key in self.body.widths("state").items()],
            "action": [list(key) for key in self.body.widths("action").items()],
            "instructions": self.instructions,
            "teacher_success": self.success,
            "definitions": robot_plan.DEFINITIONS,
        }

    def begin(self, manifest: Manifest) -> Writer:
        """The store's writer, with the embodiment beside the manifest."""
        writer = super().begin(manifest)
        stored_embodiment.write(writer.files, manifest, self._body_text)
        return writer

    def needs(self, manifest: Manifest) -> tuple[bool, bool]:
        """(whether a feature comes from the model, whether one comes from its action head)."""
        names = list(manifest.features)
        return bool(robot_plan.tapped(names)), robot_plan.needs_head(names)

    def summary(self, manifest: Manifest) -> str:
        """The records in words."""
        episodes_ = len(set(manifest.records["episode"]))
        limited = f" (at most {self.limit} a split)" if self.limit else ""
        return (
            f"{self.dataset}, {self.body.tag}: {episodes_} episodes{limited}, every {self.options.stride} rows, "
            f"{len(self.instructions)} instructions, {self.shapes.draws} chunks a record in {self.shapes.steps} steps"
        )


def open_dataset(folder: pathlib.Path) -> episodes.Dataset:
    """The dataset; a missing one is an error that names the command that records it."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no dataset at {folder}: record one (minutes) with python -m bridge.demonstrations --out {folder}, or "
            "give --dataset, a LeRobot folder"
        )
    return episodes.open(folder)


def choose_body(
    options: Options, teacher: standin.Teacher | None, data: episodes.Dataset
) -> tuple[Embodiment, pathlib.Path]:
    """The embodiment and the file it is in: --metadata, else the teacher's own, else the dataset's."""
    own = None if teacher is None else teacher.folder / METADATA
    theirs = data.folder / "meta/metadata.json"
    path = options.metadata or (own if own is not None and own.is_file() else theirs)
    if path == theirs and not theirs.is_file():
        return data.embodiment, theirs
    return embodiments.load(path, options.embodiment), path


def untrained(body: Embodiment, data: episodes.Dataset) -> tuple[Embodiment, tokenizer.Tokenizer, GrootConfig]:
    """What a random stand-in for this robot would be: how it sees, its words, and sizes with room for the robot."""
    views = [1] * len(body.transform.video_keys)
    words = standin.cut_tokenizer(inputs.prompt(e.instruction, views, 1) for e in data.episodes)
    config = standin.make_robot_config(words)
    room = {group: max(ROOM, sum(body.widths(group).values())) for group in ("state", "action")}
    horizon = body.transform.horizon
    head = dataclasses.replace(config.head, state_dim=room["state"], action_dim=room["action"], horizon=horizon)
    return standin.seen_whole(body), words, dataclasses.replace(config, head=head)


def measure(data: episodes.Dataset, body: Embodiment, *, draws: int, steps: int) -> Shapes:
    """The sizes of a robot's features."""
    return Shapes(
        state=sum(body.widths("state").values()),
        action=sum(body.widths("action").values()),
        views=len(body.transform.video_keys),
        picture=robot_records.picture(data, body),
        objects=robot_records.objects(data),
        placed=robot_samples.PIXELS in data.layout.features,
        draws=draws,
        steps=steps,
    )
