"""The presets of `train.main`, and its command line, whose defaults they are; no jax."""

import dataclasses

import tyro

from train.config import Config, Loop, Recipe


@dataclasses.dataclass(frozen=True)
class Preset:
    """A student size (`student_jax.presets.make`) with the recipe and loop that suit it."""

    student: str
    recipe: Recipe
    loop: Loop


PRESETS: dict[str, Preset] = {
    "tiny": Preset("tiny", Recipe(batch=8, steps=200), Loop(eval_every=50, share_every=50)),
    # About five minutes on two cores; R² on validation tasks moves by 0.001 in the last third.
    "standin": Preset("standin", Recipe(steps=600), Loop(eval_every=150, share_every=150)),
    # Three sizes of a robot's student, trained alike.
    "standin_small": Preset("standin_small", Recipe(steps=600), Loop(eval_every=150, share_every=150)),
    "standin_large": Preset("standin_large", Recipe(steps=600), Loop(eval_every=150, share_every=150)),
    "sage_48m": Preset("sage_48m", Recipe(batch=64, lr=5e-4, ema=0.999), Loop(eval_every=500, share_every=500)),
    # ARC's grids; its 3,000 steps take about two and a half hours on two cores.
    "cells": Preset("cells", Recipe(batch=16, steps=3000, optimiser="muon", lr=8e-3), Loop(eval_every=500)),
    "cells_48m": Preset(
        "cells_48m", Recipe(batch=64, steps=50_000, optimiser="muon", lr=3e-3, ema=0.999), Loop(eval_every=1000)
    ),
    # The user's own recipe: batch 16, 100 epochs, lr 1e-4, cosine, bf16; the store holds out 10 % of the tasks.
    "seed": Preset(
        "sage_48m", Recipe(batch=16, epochs=100.0, lr=1e-4, ema=0.999), Loop(eval_every=500, share_every=500)
    ),
}


def parse(argv: list[str]) -> Config:
    """Reads the command line; the defaults (and those `--help` shows) are the chosen preset's. Exits 2 on bad input."""
    name = _preset_of(argv)
    preset = PRESETS.get(name, PRESETS["standin"])  # tyro itself refuses an unknown name and lists the known ones
    recipe = preset.recipe
    if any(word.split("=")[0] == "--epochs" for word in argv):  # who asks for epochs does not want the preset's steps
        recipe = dataclasses.replace(recipe, steps=None)
    default = Config(preset=name, recipe=recipe, loop=preset.loop)
    return tyro.cli(Config, args=argv, default=default, prog="python -m train.main", description=Config.__doc__)


def _preset_of(argv: list[str]) -> str:
    for position, argument in enumerate(argv):
        if argument == "--preset" and position + 1 < len(argv):
            return argv[position + 1] if argv[position + 1] in PRESETS else "standin"
        if argument.startswith("--preset="):
            return argument.split("=", 1)[1] if argument.split("=", 1)[1] in PRESETS else "standin"
    return "standin"
