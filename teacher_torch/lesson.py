"""What post-training is asked to do: options, presets, and the settings that decide the weights."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Preset:
    """(steps, batch, peak learning rate) of vision pre-training and of the decoder's phase."""

    vision: tuple[int, int, float]
    tasks: tuple[int, int, float]


PRESETS = {
    "demo": Preset(vision=(700, 16, 4e-3), tasks=(120, 8, 2e-3)),
    "full": Preset(vision=(2000, 16, 4e-3), tasks=(800, 8, 1e-3)),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Train the stand-in teacher (the default), or a grid decoder over the frozen features of another teacher: the
    probe that tells what the teacher itself can do on ARC. It trains on ARC-1's train tasks and is measured on the
    validation tasks. Same seed, steps and threads: same weights, also with --resume after a kill. Robots have
    options of their own: --task robot --help."""

    task: Literal["arc"] = "arc"
    """What is learned."""
    teacher: str = "standin-arc"
    """standin-arc trains it from scratch; a checkpoint folder or hub id is frozen and only its decoder trained."""
    out: pathlib.Path | None = None
    """Where weights, decoder and metrics go. Default: runs/teachers/standin-arc, or runs/probes/TEACHER."""
    preset: Literal["demo", "full"] = "full"
    """demo: about two minutes on two idle cores; full: about seven."""
    seed: int = 0
    """Of the initial weights and of everything that is drawn."""
    resume: bool = False
    """Go on with what --out holds; without it a folder that holds a run is refused."""
    steps: int | None = None
    """Steps of the decoder's phase, in which the stand-in's language model learns too. Default: the preset's."""
    vision_steps: int | None = None
    """Steps of the stand-in's vision pre-training. Default: the preset's."""
    batch: int | None = None
    """Tasks per step of the decoder's phase. Default: the preset's; 2 is safer for a teacher at 12 tiles."""
    learning_rate: float | None = None
    """Peak rate of the decoder's phase. Default: the preset's."""
    limit: int | None = None
    """Most training and most validation tasks, for a quick look. Default: all."""
    save_every: int = 100
    """Steps between snapshots, which is what a kill may cost."""
    threads: int = 2
    """CPU threads; sums in another number of threads round differently."""
    max_tiles: int = 1
    """Frozen teachers: most tiles a frame is cut into; 12 is official (54 GB of features), 1 compact (5 GB)."""
    device: str = "auto"
    """Frozen teachers: cpu, cuda, cuda:1, ...; auto is a GPU where there is one."""
    tokenizer: str | None = None
    """Frozen teachers: folder or hub id of GR00T's tokenizer, or packaged. Default: the teacher's own, or the hub's."""

    def __post_init__(self) -> None:
        for name in ("steps", "vision_steps", "batch", "learning_rate", "limit", "save_every", "threads", "max_tiles"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")

    def recipe(self) -> Preset:
        """The preset with what the options change."""
        preset = PRESETS[self.preset]
        steps, batch, rate = preset.tasks
        changed = (given(self.steps, steps), given(self.batch, batch), given(self.learning_rate, rate))
        return Preset((given(self.vision_steps, preset.vision[0]), *preset.vision[1:]), changed)

    def settings(self, teacher: str) -> dict[str, Any]:
        """What decides the weights: two runs that agree on it are the same run."""
        chosen = dataclasses.asdict(self.recipe())
        chosen |= {name: getattr(self, name) for name in ("task", "seed", "limit", "threads", "max_tiles")}
        return json.loads(json.dumps(chosen | {"teacher": teacher}))


def task_of(argv: Sequence[str]) -> str:
    """The --task of a command line, "arc" where it names none."""
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        if word == "--task":
            return following
        if word.startswith("--task="):
            return word.removeprefix("--task=")
    return "arc"


def given(value: Any, default: Any) -> Any:
    """The value unless it is None."""
    return default if value is None else value
