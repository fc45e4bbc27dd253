"""The options of `train.main` as frozen dataclasses; no jax."""

import dataclasses
import math
import pathlib
from typing import Annotated, Literal

import tyro

from train.scale import Cluster, Scale

StageName = Literal["components", "orchestration", "end-to-end", "beyond"]
ComponentName = Literal["vision", "language", "attention", "control", "grid"]
PresetName = Literal["tiny", "standin", "standin_small", "standin_large", "sage_48m", "cells", "cells_48m", "seed"]


class ConfigError(ValueError):
    """What was asked for cannot be run; the message says why and what to change."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the parameters move."""

    batch: int = 32
    """Samples per step, over all devices."""
    steps: int | None = None
    """Training steps; overrides --epochs."""
    epochs: float = 60.0
    """Passes over the training split, instead of the preset's --steps."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalised momentum for matrices at AdamW's step size (arXiv:2502.16982), AdamW for the rest."""
    lr: float = 2e-3
    """Peak learning rate."""
    warmup: float = 0.05
    """Share of the steps over which the rate rises from 0 to its peak; a cosine brings it down again."""
    final_lr: float = 0.01
    """Learning rate at the last step, as a share of the peak."""
    weight_decay: float = 0.01
    """AdamW decay of matrices; norms, biases and embeddings never decay."""
    b2: float = 0.99
    """AdamW's second-moment decay."""
    clip: float = 1.0
    """Largest global gradient norm."""
    ema: float = 0.995
    """Decay of the averaged weights; the early average is shorter: min(ema, (1 + step) / (10 + step))."""

    def __post_init__(self):
        _require(self.batch >= 1, f"--batch is {self.batch}, expected at least 1")
        _require(self.steps is None or self.steps >= 1, f"--steps is {self.steps}, expected at least 1")
        _require(self.epochs > 0, f"--epochs is {self.epochs}, expected a positive number")
        _require(self.lr > 0, f"--lr is {self.lr}, expected a positive number")
        _require(0 <= self.warmup < 1, f"--warmup is {self.warmup}, expected a share in [0, 1)")
        _require(0 <= self.final_lr <= 1, f"--final-lr is {self.final_lr}, expected a share in [0, 1]")
        _require(self.clip > 0, f"--clip is {self.clip}, expected a positive number")
        _require(self.weight_decay >= 0, f"--weight-decay is {self.weight_decay}, expected 0 or more")
        _require(0 <= self.b2 < 1, f"--b2 is {self.b2}, expected a number in [0, 1)")
        _require(0 <= self.ema < 1, f"--ema is {self.ema}, expected a number in [0, 1)")


@dataclasses.dataclass(frozen=True)
class Loop:
    """When the loop looks at itself."""

    eval_every: int = 250
    """Steps between validations; each one also saves `last`, and `best` where it improved."""
    eval_frames: int = 2048
    """Validation frames used, evenly spaced over the split; at most the split."""
    patience: int = 8
    """Stop after this many validations without a better R²; 0 never stops early."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl (every step is checked for non-finite values)."""
    share_every: int = 250
    """Steps between measurements of each loss's share of the gradient; 0 never measures."""

    def __post_init__(self):
        for name in ("eval_every", "eval_frames", "log_every"):
            _require(
                getattr(self, name) >= 1, f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least 1"
            )
        for name in ("patience", "share_every"):
            _require(
                getattr(self, name) >= 0, f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 0 or more"
            )


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weight of each loss; each is a mean over elements before it is weighted."""

    tokens: float = 1.0
    """Mean squared error of the PHI-S standardised image tokens."""
    cosine: float = 0.5
    """1 - cosine of the same tokens."""
    attention: float = 0.5
    """KL of the teacher's vision attention from the student's, per tile."""
    rise: float = 0.02
    """Refinement steps that do not bring the error down by 2 %, relative to the step before."""
    energy: float = 0.05
    """Huber loss of the predicted log error; trains the energy head alone."""
    fused: float = 1.0
    """Robot: mean squared error of the PHI-S standardised fused tokens (after the teacher's adapter)."""
    fused_cosine: float = 0.5
    """Robot: 1 - cosine of the same tokens."""
    text: float = 0.1
    """Robot: mean squared error of the standardised text features."""
    actions: float = 5.0
    """Robot: mean squared error of the action chunk to the teacher's at the same drawn x_0, normalised units."""
    demonstration: float = 1.0
    """Robot: behaviour cloning at x_0 = 0, from which the student acts: mean squared error to the demonstrated chunk,
    normalised units. 0: as if nothing had been shown; then it learns to act as the teacher does on average."""
    imitation: float = 1.0
    """Robot: the same where nothing was shown (rounds): to the mean over the teacher's draws."""
    cells: float = 1.0
    """Grids: cross-entropy of every cell's colour, "outside the grid" being one."""
    features: float = 0.5
    """--baseline seed: squared error + 0.5 (1 - cosine) of its mean state, projected, to the mean of what it is given.
    """
    objects: float = 0.5
    """Robot: where the task's objects are, from simulator truth; 0 leaves that head out."""
    saliency: float = 1.0
    """H-module: KL of the teacher's saliency from the student's, over the image tokens of all views."""
    foresight: float = 0.2
    """H-module: Huber loss of the predicted log action error, for the steps that were taken."""
    confidence: float = 1.0
    """H-module: squared distance to the teacher's confidence."""

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            _require(0 <= value < math.inf, f"--loss.{name.replace('_', '-')} is {value}, expected 0 or more, finite")


@dataclasses.dataclass(frozen=True)
class Rounds:
    """Robot, end-to-end: rounds of teacher labels on states that the student visits (DAgger, arXiv:1011.0686)."""

    rounds: int = 0
    """How often the student acts in the simulator, the teacher labels what it saw, and training goes on with both."""
    round_steps: int = 300
    """Training steps of each round."""
    round_episodes: int = 8
    """Episodes of each task per round, on placements of the training split that no demonstration used."""
    teacher: str = ""
    """Who labels: a stand-in, a checkpoint folder or a hub id, of the same weights that made the store. Default: the
    teacher that the store names. It always labels with the store's own embodiment."""
    teacher_tokenizer: str = ""
    """The teacher's tokenizer: a folder, a hub id or `packaged`. Default: the teacher's own, else the hub's copy."""
    teacher_device: str = ""
    """Where the teacher computes: cpu, cuda, cuda:1. Default: a GPU where there is one."""

    def __post_init__(self):
        _require(self.rounds >= 0, f"--rounds is {self.rounds}, expected 0 or more")
        for name in ("round_steps", "round_episodes"):
            _require(
                getattr(self, name) >= 1, f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 1 or more"
            )


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What is trained instead of SAGE, to compare with."""

    baseline: Literal["", "seed"] = ""
    """seed: the user's original student of ARC's grids, of the preset's size (sage_48m and seed: as it was). It reads
    the teacher's tokens, at use time too."""
    mistakes: tuple[Literal["padding", "sums", "projector"], ...] = ()
    """--baseline seed: mistakes of its first attempt to make again, to see what each repair is worth. padding: what
    lies outside a grid counts as colour 0; sums: the feature loss is summed over channels; projector: not trained."""

    def __post_init__(self):
        _require(bool(self.baseline) or not self.mistakes, "--mistakes are those of --baseline seed: give both")


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where and how it runs: none of these changes the numbers, so a resume may change them."""

    store: str = ""
    """Feature store: a folder or a tensorstore key-value URL (on a resume: the same content, wherever it lies); or
    `families`: small puzzles that are generated as they are read, without a teacher (`families-10`: up to 10 x 10)."""
    out: pathlib.Path = pathlib.Path("runs/vision")
    """Run folder: config.json, metrics.jsonl, tensorboard/, best/, last/."""
    resume: bool = False
    """Go on from `last` in --out, bit for bit as if never stopped."""
    stop_after: int | None = None
    """Save and stop after this step, as an interrupt would; --resume goes on."""
    host_devices: int | None = None
    """CPU devices to make (data-parallel); default one per core up to 8 that divides the batch. Fixed for a run."""
    threads: int = 2
    """Reader threads."""
    prefetch: int = 4
    """Batches read ahead."""
    cache_gib: float = 2.0
    """Keep a split's features in memory when they are at most this large; larger ones are read batch by batch."""

    def __post_init__(self):
        for name, least in (("threads", 1), ("prefetch", 1), ("cache_gib", 0)):
            value = getattr(self, name)
            _require(least <= value < math.inf, f"--{name.replace('_', '-')} is {value}, expected {least} or more")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train one stage of the student from a feature store."""

    stage: StageName = "components"
    """What is trained."""
    component: ComponentName = "vision"
    """Which module, for --stage components; a robot's language and control want --init with those before them."""
    preset: PresetName = "standin"
    """Student size and the defaults of the recipe; `seed` is the user's own recipe on the full student."""
    seed: int = 0
    """Seed of initialisation, shuffling and noise."""
    init: str = ""
    """Run folder whose modules this run starts from (its best, averaged weights); those it lacks start fresh. Robot: a
    run for the same embodiment; a control trained alone may be for another, on the run's vision and language."""
    also: tuple[str, ...] = ()
    """Robot: further stores of the same teacher, of states that a student visited; nothing is demonstrated there."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()
    loop: Annotated[Loop, tyro.conf.arg(name="")] = Loop()
    loss: LossWeights = LossWeights()
    visits: Annotated[Rounds, tyro.conf.arg(name="")] = Rounds()
    instead: Annotated[Baseline, tyro.conf.arg(name="")] = Baseline()
    scale: Annotated[Scale, tyro.conf.arg(name="")] = Scale()  # noqa: RUF009 - frozen
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = Cluster()  # noqa: RUF009 - frozen
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch()

    def __post_init__(self):
        _require(self.seed >= 0, f"--seed is {self.seed}, expected 0 or more")
        for problem in (*self.scale.problems(), *self.cluster.problems()):
            raise ConfigError(problem)
