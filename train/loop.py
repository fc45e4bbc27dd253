"""The training loop: dispatch a step, read the last one's metrics, validate, save; and stop for good reasons only."""

import dataclasses
import signal
import time
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from train import checkpoint, cluster, config, data, display, metrics, program, sharding, stages, state, step

LEAST_SHARE = 0.01
SLOW_LOADER = 0.05
"""Share of the time that the loop may wait for its next batch before it says so."""


@dataclasses.dataclass
class Progress:
    """What a resume needs besides the arrays; saved as JSON with every checkpoint."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    """Validations since the best one."""
    finished: str = ""
    """Why training is over, or empty."""

    def judge(self, value: float, patience: int) -> bool:
        """Takes in the task metric (higher is better) of the current step; true where it is the best so far."""
        better = self.best is None or value > self.best
        self.best, self.best_step = (value, self.step) if better else (self.best, self.best_step)
        self.stale = 0 if better else self.stale + 1
        if patience and self.stale >= patience:
            self.finished = f"no better R² in {patience} validations"
        return better


class Interrupt:
    """Catches SIGINT and SIGTERM, so that the loop can save first; a second signal acts as it always did."""

    def __init__(self):
        self.signal, self.agreed = 0, 0  # what came here, and what all processes stop for
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._previous[number])


@dataclasses.dataclass(frozen=True)
class Functions:
    """The jitted functions of one stage."""

    train: program.Program
    measure: program.Program
    shares: program.Program


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where batches come from."""

    train: data.Source
    validation: data.Source


class Trainer:
    """One run in progress: device state, log and checkpoints, moved by `fit`."""

    def __init__(
        self,
        options: config.Config,
        stage: stages.Stage,
        functions: Functions,
        sources: Sources,
        mesh: Mesh,
        *,
        steps: int,
        now: state.TrainState,
        progress: Progress,
    ):
        self.options, self.stage, self.functions, self.sources, self.mesh = options, stage, functions, sources, mesh
        self.steps, self.now, self.progress = steps, now, progress
        self.key = sharding.make_key(options.seed, mesh)
        self.rows, self.clock = sharding.rows(mesh, options.recipe.batch), data.Clock()
        folder = options.launch.out
        self.last, self.best = checkpoint.Slot(folder / "last"), checkpoint.Slot(folder / "best")
        self.log = metrics.MetricLog(folder, step=progress.step) if cluster.leads() else metrics.Silence()
        self._held, self._mark = metrics.Delayed(), (progress.step, time.perf_counter())
        self._agree, self._stop = cluster.Agreement(mesh), 0

    def fit(self, show: display.Display, interrupt: Interrupt) -> Progress:
        """Trains until steps or patience end, `--stop-after` or a signal; leaves `last` at the step it stopped."""
        launch, loop, progress = self.options.launch, self.options.loop, self.progress
        batches = self._batches()
        upcoming = self._next(batches)
        while not progress.finished:
            batch, progress.step = upcoming, progress.step + 1
            self._advance(batch, show, interrupt)
            upcoming = self._next(batches)
            over = progress.step >= self.steps
            if over:
                progress.finished = f"{self.steps} steps done"
            if over or progress.step % loop.eval_every == 0:
                self._settle(show)
                self._validate(show)
                self._save()
            if self._stopping(interrupt) or progress.step == launch.stop_after:
                self._settle(show)
                self._save()
                break
        self.last.wait()
        return progress

    def _stopping(self, interrupt: Interrupt) -> int:
        interrupt.agreed = self._stop if jax.process_count() > 1 else interrupt.signal
        return interrupt.agreed

    def close(self) -> None:
        """Finishes the writing under way."""
        self.last.wait()
        self.best.wait()
        self.log.close()

    def _batches(self) -> Iterator[data.Batch]:
        launch, options = self.options.launch, self.options
        order = data.training(
            self.sources.train, batch=options.recipe.batch, seed=options.seed, rows=self.rows, clock=self.clock
        )
        return data.read_ahead(order, start=self.progress.step, threads=launch.threads, prefetch=launch.prefetch)

    def _next(self, batches: Iterator[data.Batch]) -> Any:
        with self.clock.waiting():
            batch = next(batches)
        return sharding.shard_batch(batch, self.mesh)

    def _advance(self, batch: Any, show: display.Display, interrupt: Interrupt) -> None:
        """Dispatches one step; only then reads the metrics of the one before, and whether any process was to stop."""
        every, number = self.options.loop.share_every, self.progress.step
        asked = self._agree(interrupt.signal)
        with jax.transfer_guard("disallow"):  # nothing that the host holds enters or leaves the step by the way
            measured = self.functions.shares(self.now, batch, self.key) if every and number % every == 0 else {}
            self.now, values = self.functions.train(self.now, batch, self.key)
        self._report(self._held.swap(number, values | measured | asked), show)

    def _settle(self, show: display.Display) -> None:
        """Reads what is held back, so that nothing is saved after a non-finite step."""
        self._report(self._held.take(), show)

    def _report(self, row: tuple[int, dict[str, float]] | None, show: display.Display) -> None:
        if row is None:
            return
        number, values = row
        self._stop = int(values.pop(cluster.STOP, 0))
        measured = any(name.startswith("share/") for name in values)
        if measured or number % self.options.loop.log_every == 0 or number == 1:
            self.log.write(number, "train", values)
        for name in starved(values):
            show.say(f"step {number}  {name} has {values['share/' + name]:.2%} of the gradient: raise --loss.{name}")
        show.step(number, values["loss"])

    def _validate(self, show: display.Display) -> None:
        """Scores the averaged weights on the validation split, sets what is calibrated there, and judges the metric."""
        progress, loop = self.progress, self.options.loop
        rate = self._rate()
        batch = self.options.recipe.batch // self.options.scale.accumulate
        rows = sharding.rows(self.mesh, batch)
        batches = data.validation(self.sources.validation, batch=batch, limit=loop.eval_frames, rows=rows)
        sharded = (sharding.shard_batch(batch, self.mesh) for batch in batches)
        sums = [self.functions.measure(self.now.ema, self.now.frozen, batch, self.key) for batch in sharded]
        summary = self.stage.summarise([{k: np.asarray(v) for k, v in part.items()} for part in jax.device_get(sums)])
        self.log.write(progress.step, "validation", summary)
        frozen = state.replace_leaves(self.now.frozen, self.stage.calibrate(summary))
        self.now = dataclasses.replace(self.now, frozen=sharding.put(frozen, self.mesh))
        best = progress.judge(summary[self.stage.metric], loop.patience)
        clock = self.clock.read(rate, threads=self.options.launch.threads)
        self.log.board(progress.step, {"clock/steps_per_second": rate} | clock)
        if clock["clock/loader_wait"] > SLOW_LOADER:
            show.say(f"the step waits for its data {clock['clock/loader_wait']:.0%} of the time: raise --threads")
        show.validation(progress.step, values={name: summary[name] for name in self.stage.shown}, rate=rate, best=best)
        self._mark = (progress.step, time.perf_counter())
        self.clock.reset()

    def _rate(self) -> float:
        number, since = self._mark
        return (self.progress.step - number) / max(time.perf_counter() - since, 1e-9)

    def _save(self) -> None:
        """`best` is complete before `last` names it, so that a kill between the two loses nothing."""
        if self.progress.best_step == self.progress.step:
            now = self.now
            weights = {"params": now.params, "frozen": now.frozen, "ema": now.ema}
            self.best.save(self.progress.step, weights, dataclasses.asdict(self.progress))
            self.best.wait()
        self.last.save(self.progress.step, self.now, dataclasses.asdict(self.progress))


def make_functions(
    graph: Any,
    stage: stages.Stage,
    optimiser: Any,
    schedule: Any,
    options: config.Config,
    *,
    mesh: Mesh,
    like: state.TrainState,
) -> Functions:
    """Everything that is compiled. like: the state, or its shapes."""
    return Functions(
        train=step.make_train_step(graph, stage, optimiser, schedule, options, mesh, like=like),
        measure=step.make_measure(graph, stage, mesh, like=like),
        shares=step.make_shares(graph, stage, options, mesh, like=like),
    )


def starved(values: dict[str, float]) -> list[str]:
    """Losses with less than `LEAST_SHARE` of the gradient, but for those that are nought: they had nothing to count."""
    named = {name.removeprefix("share/"): value for name, value in values.items() if name.startswith("share/")}
    return [name for name, value in named.items() if value < LEAST_SHARE and values.get(f"loss/{name}") != 0]
