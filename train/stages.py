"""What each `--stage` (and `--component`) trains: its leaves, features, losses and task metric, as one small object."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from train import config, data, losses, state, vision

Terms = dict[str, losses.Term]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One row of the table of stages (DESIGN.md section 5)."""

    name: str
    metric: str
    """Validation metric that decides what is best; higher is better."""
    shown: tuple[str, ...]
    """Validation metrics on the terminal, the first also beside the progress bar."""
    trains: Callable[[state.Path], bool]
    """Which parameter paths move."""
    features: tuple[str, ...]
    """What it reads from the store, besides the observation."""
    terms: Callable[..., tuple[Terms, Terms]]
    """(student, batch, key) -> (losses by the names of LossWeights, further means to log)."""
    measure: Callable[..., dict[str, Any]]
    """(student, batch, key) -> sums over a validation batch."""
    summarise: Callable[[Sequence[dict[str, Any]]], dict[str, float]]
    """Validation metrics from all batches' sums."""
    statistics: Callable[[data.Frames], dict[state.Path, Any]]
    """Constants of the weights, by path, from the training split; set once."""
    calibrate: Callable[[dict[str, float]], dict[state.Path, Any]]
    """Constants of the weights, by path, from each validation's metrics."""


STAGES = {
    ("components", "vision"): Stage(
        name="components/vision",
        metric="r2_mean",
        shown=("r2_mean", "r2_p10", "cosine", "attention_kl", "energy_rank_correlation"),
        trains=lambda path: path[0] == "vision",
        features=("image_tokens", "vision_attention"),
        terms=vision.terms,
        measure=vision.measure,
        summarise=vision.summarise,
        statistics=vision.statistics,
        calibrate=vision.calibrate,
    ),
}


def select(options: config.Config) -> Stage:
    """The stage that was asked for; one that is planned but not built is a ConfigError listing those that are."""
    component = options.component if options.stage == "components" else None
    found = STAGES.get((options.stage, component))
    if found is None:
        asked = f"--stage {options.stage}" + (f" --component {component}" if component else "")
        built = "; ".join(f"--stage {stage} --component {part}" for stage, part in STAGES)
        raise config.ConfigError(f"{asked} is planned (DESIGN.md section 5) but not built yet; built are: {built}")
    return found
