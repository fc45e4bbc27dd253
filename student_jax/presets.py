"""The presets of the student by name: their sizes for a teacher's tokens, a robot, puzzles."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from student_jax import sizes
from student_jax.config import Reserve, Robot, StudentConfig, Target, VisionConfig


def tiny(target: Target, robot: Robot | None = None) -> StudentConfig:
    """For tests: seconds on a CPU."""
    vision = VisionConfig(
        canvas=32, patch=8, width=16, heads=2, mlp=32, stem_blocks=1, step_blocks=1, max_steps=3, dtype="float32"
    )
    if robot is None:
        return StudentConfig(vision, target)
    text = {"vocabulary": 300, "embedding": 8, "length": 12, "text_blocks": 1, "step_blocks": 1}
    language = sizes.LanguageConfig(**text, frames=robot.frames, width=24, heads=2, mlp=32, dtype="float32")
    control = sizes.ControlConfig(width=16, heads=2, mlp=32, blocks=1, max_steps=2, dtype="float32")
    return _acting(StudentConfig(vision, target), robot, language, control)


def standin(target: Target, robot: Robot | None = None) -> StudentConfig:
    """For the stand-in teachers (64 tokens a frame, 128 channels), trained on two CPU cores.

    ARC: MFLOP a frame, all steps and one reading: 139 folded, 177 as trained; 3 times 150 a frame of training. Counted
    and left: width 192 at patch 28 (331), width 96 at patch 14 (341; four times the tokens, a third of a block
    attention). Robot: a third of `standin-robot`'s values; two heads, which
    train in two thirds of the time of four on a CPU.
    """
    vision = VisionConfig(canvas=224, patch=28, width=128, heads=4, mlp=384, stem_blocks=2, step_blocks=1, max_steps=2)
    if robot is None:
        return StudentConfig(vision, target)
    return _standin(target, robot, seen=(96, 144), read=(128, 64), act=(128, 96))


def standin_small(target: Target, robot: Robot | None = None) -> StudentConfig:
    """A third of `standin`'s values, for a robot: the low end of quality against size."""
    return _standin(target, _robot("standin_small", robot), seen=(56, 80), read=(72, 36), act=(72, 54))


def standin_large(target: Target, robot: Robot | None = None) -> StudentConfig:
    """Three times `standin`'s values, for a robot, as many as `standin-robot` has: the high end."""
    return _standin(target, _robot("standin_large", robot), seen=(168, 256), read=(240, 120), act=(240, 180))


def _standin(
    target: Target, robot: Robot, *, seen: tuple[int, int], read: tuple[int, int], act: tuple[int, int]
) -> StudentConfig:
    """One depth in every size; (width, mlp) of vision, language and control differ."""
    shape = {"canvas": 128, "patch": 16, "heads": 2, "stem_blocks": 2, "step_blocks": 1, "max_steps": 2}
    vision = VisionConfig(width=seen[0], mlp=seen[1], **shape)
    text = {"vocabulary": 512, "embedding": 24, "length": 32, "text_blocks": 1, "step_blocks": 1}
    language = sizes.LanguageConfig(**text, frames=robot.frames, width=read[0], heads=2, mlp=read[1])
    control = sizes.ControlConfig(width=act[0], heads=2, mlp=act[1], blocks=2, max_steps=3)
    return _acting(StudentConfig(vision, target), robot, language, control)


def _robot(preset: str, robot: Robot | None) -> Robot:
    if robot is None:
        raise ValueError(f"preset {preset} acts, and needs a robot; without one use standin")
    return robot


def sage_48m(target: Target, robot: Robot | None = None) -> StudentConfig:
    """For the real teacher: 48.5 million values at most, the reserve for later modules included."""
    vision = VisionConfig(canvas=224, patch=14, width=384, heads=6, mlp=1536, stem_blocks=6, step_blocks=2, max_steps=4)
    reserve = Reserve(
        text=1_600_000, language=7_100_000, h_module=5_000_000, control=8_000_000, grid=4_000_000, tables=1_000_000
    )
    if robot is None:
        return StudentConfig(vision, target, reserve=reserve)
    reserve = dataclasses.replace(reserve, text=0, language=0, control=0)
    text = {"vocabulary": 4096, "embedding": 128, "length": 64, "text_blocks": 1, "step_blocks": 1}
    language = sizes.LanguageConfig(**text, frames=robot.frames, width=384, heads=6, mlp=1536, max_steps=2)
    control = sizes.ControlConfig(width=384, heads=6, mlp=1536, blocks=3, max_steps=4)
    return _acting(StudentConfig(vision, target, reserve=reserve), robot, language, control)


def _acting(
    seeing: StudentConfig, robot: Robot, language: sizes.LanguageConfig, control: sizes.ControlConfig
) -> StudentConfig:
    vision = dataclasses.replace(seeing.vision, objects=robot.objects)
    return dataclasses.replace(seeing, vision=vision, language=language, control=control, actions=robot.actions)


def cells(target: Target, robot: Robot | None = None) -> StudentConfig:
    """For ARC's grids: a token for every 2 x 2 cells of a canvas that is no larger than the task needs."""
    vision = VisionConfig(
        canvas=120, patch=8, width=96, heads=4, mlp=192, stem_blocks=1, step_blocks=1, max_steps=1, crop=True
    )
    grid = sizes.GridConfig(30, width=160, heads=4, mlp=320, pair_blocks=2, step_blocks=3, symmetries=False)
    return _solving(vision, target, robot, grid)


def cells_48m(target: Target, robot: Robot | None = None) -> StudentConfig:
    """The same for a GPU, 42 million values: GFLOP of one forward pass over a task of four pairs, each asked in turn,
    by cells of the canvas's side: 38 (10), 65 (16), 107 (22), 190 (30); a training step is three times that a task."""
    vision = VisionConfig(
        canvas=120, patch=8, width=384, heads=6, mlp=1536, stem_blocks=4, step_blocks=2, max_steps=1, crop=True
    )
    grid = sizes.GridConfig(30, width=512, heads=8, mlp=2048, pair_blocks=4, step_blocks=4, max_steps=2)
    return _solving(vision, target, robot, grid)


def _solving(vision: VisionConfig, target: Target, robot: Robot | None, grid: sizes.GridConfig) -> StudentConfig:
    if robot is not None:
        raise ValueError(f"presets {' and '.join(SOLVERS)} solve grids; a robot needs standin or sage_48m")
    return StudentConfig(vision, target, grid=grid)


SOLVERS = ("cells", "cells_48m")
"""Presets of students that solve ARC's grids."""
PUZZLES = {
    "tiny": (16, 32, sizes.GridConfig(1, width=16, heads=2, mlp=32, pair_blocks=1, step_blocks=1, dtype="float32")),
    "standin": (64, 128, sizes.GridConfig(1, width=128, heads=4, mlp=256, pair_blocks=2, step_blocks=3)),
    "sage_48m": (384, 1536, sizes.GridConfig(1, width=384, heads=6, mlp=1536, pair_blocks=3, step_blocks=3)),
}


def puzzles(preset: str, *, cells: int, pixels: int = 4) -> StudentConfig:
    """The student of a preset for puzzles on a canvas of so many cells a side, one token per cell and no teacher."""
    if preset not in PUZZLES:
        raise ValueError(f"Unknown preset {preset!r}; use one of {', '.join(PUZZLES)}.")
    width, mlp, grid = PUZZLES[preset]
    vision = VisionConfig(
        canvas=cells * pixels, patch=pixels, width=width, heads=grid.heads, mlp=mlp, stem_blocks=1, step_blocks=1,
        max_steps=1, dtype=grid.dtype,
    )  # fmt: skip
    return StudentConfig(vision, Target(width=1, grid=cells), grid=dataclasses.replace(grid, cells=cells))


SEEDS = {
    "tiny": sizes.SeedConfig(width=16, heads=2, layers=1, mlp=32, decoder=(32,), dtype="float32"),
    "standin": sizes.SeedConfig(width=128, heads=4, layers=3, mlp=512, decoder=(256, 512)),
    "sage_48m": sizes.SeedConfig(),
}


def seed(preset: str, target: Target) -> StudentConfig:
    """The user's original student for this target; at `sage_48m` as it was."""
    if preset not in SEEDS:
        raise ValueError(f"No original student at preset {preset!r}; use one of {', '.join(SEEDS)}.")
    return StudentConfig(tiny(target).vision, target, seed=SEEDS[preset])


H_MODULES = {
    "tiny": sizes.HConfig(width=16, heads=2, mlp=32, dtype="float32"),
    "standin": sizes.HConfig(width=48, heads=2, mlp=96),
    "sage_48m": sizes.HConfig(width=256, heads=4, mlp=1024, blocks=2),
}


def orchestrated(settings: StudentConfig, preset: str) -> StudentConfig:
    """The same student with the H-module of a preset; what was set aside for one is then in use."""
    reserve = dataclasses.replace(settings.reserve, h_module=0)
    return dataclasses.replace(settings, h_module=H_MODULES[preset], reserve=reserve)


PRESETS: dict[str, Callable[[Target, Robot | None], StudentConfig]] = {
    "tiny": tiny,
    "standin": standin,
    "standin_small": standin_small,
    "standin_large": standin_large,
    "sage_48m": sage_48m,
    "cells": cells,
    "cells_48m": cells_48m,
}


def make(
    preset: str,
    target: Target,
    *,
    task: Literal["arc", "robot"] = "arc",
    robot: Robot | None = None,
) -> StudentConfig:
    """The student of a preset for this target; a `robot` task needs its sizes. An unknown name is an error that lists
    the known ones."""
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset {preset!r}; use one of {', '.join(PRESETS)}.")
    if task not in ("arc", "robot") or (task == "robot") != (robot is not None):
        raise ValueError(
            f'make needs task="arc", or task="robot" with robot=Robot(actions, ...); got {task!r}, {robot}.'
        )
    return PRESETS[preset](target, robot)
