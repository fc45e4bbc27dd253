"""What each `--stage` (and `--component`) trains: its leaves, features, losses and task metric, as one small object."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from train import config, grid, losses, orchestra, orchestra_scores, robot, robot_scores, seed, state, vision

Terms = losses.Terms


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
    statistics: Callable[[Any], dict[state.Path, Any]]
    """Constants of the weights, by path, from the training split; set once."""
    calibrate: Callable[[dict[str, float]], dict[state.Path, Any]]
    """Constants of the weights, by path, from each validation's metrics."""
    orchestrates: bool = False
    """Whether its student has an H-module."""
    draws: bool = False
    """Whether its losses draw for every sample, or lend one sample what is another's: then the parts of a batch that
    is accumulated draw anew, and their step is another sample of the whole batch's instead of equal to it."""


ARC_VISION = Stage(
    name="components/vision",
    metric="r2_mean",
    shown=("r2_mean", "r2_p10", "cosine", "attention_kl", "energy_rank_correlation"),
    trains=lambda path: path[0] == "vision",
    features=robot.SIGHT,
    terms=vision.terms,
    measure=vision.measure,
    summarise=vision.summarise,
    statistics=vision.statistics,
    calibrate=vision.calibrate,
)
ROBOT_VISION = dataclasses.replace(
    ARC_VISION,
    features=(*robot.SIGHT, *robot.WORDS, *robot.ACTS),
    terms=robot.vision_terms,
    statistics=robot.statistics,
)
LANGUAGE = dataclasses.replace(
    ROBOT_VISION,
    name="components/language",
    metric="fused_r2",
    shown=("fused_r2", "text_r2", "energy_rank_correlation"),
    trains=lambda path: path[0] == "language",
    terms=robot.language_terms,
    measure=robot_scores.measure_language,
    summarise=robot_scores.summarise_language,
    calibrate=robot.calibrate_language,
)
CONTROL = dataclasses.replace(
    ROBOT_VISION,
    name="components/control",
    metric="own_r2",
    shown=("own_r2", "action_r2", "residual_r2", "action_mse", "energy_rank_correlation"),
    trains=lambda path: path[0] == "control",
    terms=robot.control_terms,
    measure=robot_scores.measure,
    summarise=robot_scores.summarise,
    calibrate=robot.calibrate,
)
END_TO_END = dataclasses.replace(
    CONTROL, name="end-to-end", trains=lambda path: True, terms=robot.terms, calibrate=robot.calibrate_all
)
HEADS = ("readout", "error_norm", "error_up", "error_out")
"""Of the Vision IRP, for a teacher's tokens."""
PUZZLES = Stage(
    name="end-to-end",
    metric="exact",
    shown=("exact", "learned", "size_accuracy", "cell_accuracy", "energy_rank_correlation"),
    trains=lambda path: path[:1] != ("vision",) or path[1] not in HEADS,
    features=(),
    terms=grid.terms,
    measure=grid.measure,
    summarise=grid.by_family,
    statistics=lambda source: {},
    calibrate=lambda summary: {},
)
ARC_GRID = dataclasses.replace(
    PUZZLES,
    metric="likelihood",
    shown=("likelihood", "exact", "size_accuracy", "cell_accuracy", "energy_rank_correlation"),
    summarise=grid.summarise,
)
SEED = Stage(
    name="end-to-end",
    metric="likelihood",
    shown=("likelihood", "cell_accuracy", "exact"),
    trains=lambda path: True,
    features=(),
    terms=seed.make_terms(()),
    measure=seed.measure,
    summarise=seed.summarise,
    statistics=lambda source: {},
    calibrate=lambda summary: {},
    draws=True,
)
"""The original student of ARC's grids, its mistakes repaired."""
ATTENTION = dataclasses.replace(
    ROBOT_VISION,
    name="components/attention",
    metric="saliency_overlap",
    shown=("saliency_overlap", "saliency_kl", "steps_saved", "confidence_r2"),
    trains=lambda path: path[0] == "h_module",
    features=(*ROBOT_VISION.features, *orchestra.FEATURES),
    terms=orchestra.attention_terms,
    measure=orchestra_scores.measure,
    summarise=orchestra_scores.summarise,
    calibrate=lambda summary: {},
    orchestrates=True,
    draws=True,
)
ORCHESTRATION = dataclasses.replace(
    ATTENTION,
    name="orchestration",
    shown=("own_r2", "action_r2", "action_r2_planned", "steps_saved", "saliency_overlap", "confidence_r2"),
    terms=orchestra.frozen_terms,
)
TOGETHER = dataclasses.replace(
    ORCHESTRATION,
    name="end-to-end",
    metric="own_r2",
    trains=lambda path: True,
    terms=orchestra.terms,
    calibrate=robot.calibrate_all,
)
"""End-to-end from a run that has an H-module."""
STAGES = {
    ("arc", "components", "vision"): ARC_VISION,
    ("robot", "components", "vision"): ROBOT_VISION,
    ("robot", "components", "language"): LANGUAGE,
    ("robot", "components", "control"): CONTROL,
    ("robot", "components", "attention"): ATTENTION,
    ("robot", "orchestration", None): ORCHESTRATION,
    ("robot", "end-to-end", None): END_TO_END,
    ("families", "end-to-end", None): PUZZLES,
    ("arc", "end-to-end", None): ARC_GRID,
}


def select(options: config.Config, task: str | None) -> Stage | None:
    """The stage that was asked for, on a store of this task; ConfigError listing those that are built where it is not.

    Where demonstrations count for nothing, the teacher's mean takes their place. Without a task: None, once it is
    certain that the stage is built for one.
    """
    component = options.component if options.stage == "components" else None
    if task is None and any(key[1:] == (options.stage, component) for key in STAGES):
        return None
    found = STAGES.get((task, options.stage, component))
    if found is None:
        asked = f"--stage {options.stage}" + (f" --component {component}" if component else "")
        names = [each.name.split("/") for (kind, _, _), each in STAGES.items() if task in (kind, None)]
        built = "; ".join(dict.fromkeys(" --component ".join(["--stage " + name[0], *name[1:]]) for name in names))
        where = f" for a store of task {task!r}" if task else ""
        raise config.ConfigError(f"{asked} is not built yet{where}; built are: {built}")
    if options.instead.baseline:
        return original(options, found)
    if "own_r2" in found.shown and not options.loss.demonstration:
        return dataclasses.replace(found, terms=robot.unseen(found.terms), measure=robot.unseen(found.measure))
    return found


def original(options: config.Config, found: Stage) -> Stage:
    """`SEED` with the mistakes that are to be made again; ConfigError where it is no ARC store, end-to-end."""
    if found is not ARC_GRID:
        raise config.ConfigError("--baseline seed solves ARC's grids: give --stage end-to-end and a store of ARC tasks")
    mistakes = options.instead.mistakes
    frozen = ("seed", "tell") if "projector" in mistakes else None
    return dataclasses.replace(SEED, terms=seed.make_terms(mistakes), trains=lambda path: path[:2] != frozen)
