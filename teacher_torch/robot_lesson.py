"""What post-training on a robot is asked to do: options, presets, and the settings that decide the weights."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any, Literal

from teacher_torch.robot_trainees import Course, Tune

DATASET = pathlib.Path("runs/datasets/metaworld")
STAND_IN = "standin-robot"


@dataclasses.dataclass(frozen=True)
class Preset:
    """Vision pre-training (of a stand-in) and flow matching."""

    vision: Course
    actions: Course


PRESETS = {
    "demo": Preset(Course(300, 48, 2e-3), Course(300, 32, 1e-3)),
    "full": Preset(Course(900, 48, 2e-3), Course(3600, 32, 1e-3)),
    "finetune": Preset(Course(0, 1, 1e-3), Course(10_000, 32, 1e-4)),  # GR00T's own: 32 a GPU, 1e-4
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Post-train a teacher on robot demonstrations: the stand-in from scratch (the default), or a GR00T checkpoint by
    its own fine-tuning. A dataset is LeRobot v2.1 or v3.0. Same seed, steps and threads: same weights, also with
    --resume after a kill."""

    task: Literal["robot"] = "robot"
    """What is learned."""
    teacher: str = STAND_IN
    """standin-robot trains it from scratch; a checkpoint folder or hub id is fine-tuned."""
    dataset: pathlib.Path = DATASET
    """Folder of the LeRobot dataset; python -m bridge.demonstrations records one."""
    out: pathlib.Path | None = None
    """Where weights, metadata and metrics go. Default: runs/teachers/standin-robot, or runs/teachers/TEACHER-robot."""
    preset: Literal["demo", "full", "finetune"] | None = None
    """demo: minutes; full: about an hour on two idle cores; finetune (for a checkpoint): GR00T's own, on a GPU."""
    metadata: pathlib.Path | None = None
    """Embodiment file. Default: the dataset's meta/metadata.json, else measured over its training episodes."""
    seed: int = 0
    """Of the initial weights and of everything that is drawn."""
    resume: bool = False
    """Go on with what --out holds; without it a folder that holds a run is refused."""
    steps: int | None = None
    """Steps of flow matching. Default: the preset's."""
    vision_steps: int | None = None
    """Steps of the stand-in's vision pre-training. Default: the preset's."""
    batch: int | None = None
    """Examples per step of flow matching. Default: the preset's."""
    learning_rate: float | None = None
    """Peak rate of flow matching. Default: the preset's."""
    draws: int = 4
    """Pairs of noise and time per example and step; 1 is official."""
    stride: int = 2
    """Every so many rows of an episode are an example."""
    tune: Tune = Tune()  # noqa: RUF009 - frozen
    """Which parts of a checkpoint move; a stand-in trains whole."""
    mask_padding: bool = True
    """Hide the padding of shorter prompts from the head; --no-mask-padding is official."""
    jitter: bool = True
    """Colour augmentation as in GR00T's shipped configurations."""
    episodes: int = 10
    """Validation episodes of each simulated task after training; 0 measures no success."""
    save_every: int = 200
    """Steps between snapshots, which is what a kill may cost."""
    threads: int = 2
    """CPU threads; sums in another number of threads round differently."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto is a GPU where there is one."""
    tokenizer: str | None = None
    """Folder or hub id of GR00T's tokenizer, or packaged. Default: the teacher's own, or the hub's."""
    cache_gib: float = 6.0
    """Decoded frames kept in memory; what does not fit is decoded again."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "learning_rate", "draws", "stride", "save_every", "threads"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {value}")
        for name in ("seed", "vision_steps", "episodes", "cache_gib"):
            if (value := getattr(self, name)) is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more and finite, got {value}")

    @property
    def own(self) -> bool:
        """Whether a stand-in is made."""
        return self.teacher == STAND_IN

    def recipe(self) -> Preset:
        """The preset with what the options change."""
        preset = PRESETS[self.preset or ("full" if self.own else "finetune")]
        course = preset.actions
        changes = {"steps": self.steps, "batch": self.batch, "rate": self.learning_rate}
        actions = dataclasses.replace(course, **{name: value for name, value in changes.items() if value is not None})
        steps = preset.vision.steps if self.vision_steps is None else self.vision_steps
        return Preset(dataclasses.replace(preset.vision, steps=steps), actions)

    def settings(self, teacher: str, dataset: str) -> dict[str, Any]:
        """What decides the weights: two runs that agree on it are the same run."""
        chosen = dataclasses.asdict(self.recipe())
        names = ("task", "seed", "threads", "draws", "stride", "mask_padding", "jitter")
        chosen |= {name: getattr(self, name) for name in names}
        tune = None if self.own else dataclasses.asdict(self.tune)
        return json.loads(json.dumps(chosen | {"tune": tune, "teacher": teacher, "dataset": dataset}))
