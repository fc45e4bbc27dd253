"""Training in phases: AdamW, warm-up and cosine, clipping, JSONL metrics, and a resume that is exact after a kill."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

SNAPSHOT, METRICS = "training.pt", "metrics.jsonl"
WARM_UP = 0.05  # share of a phase's steps
FLOOR = 0.02  # share of the peak rate that the cosine ends at
CLIP = 1.0
WEIGHT_DECAY = 0.01


class TrainingError(ValueError):
    """Training that cannot go on or cannot be resumed; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """Steps with one optimiser. groups: (peak learning rate, modules); loss(step) -> its named terms, to be summed.

    prepare() is called before the first step; it may change the weights, by what the earlier phases left alone.
    loss must be a function of the step and the weights alone: all it draws, it draws from a generator seeded by both.
    """

    name: str
    steps: int
    groups: Sequence[tuple[float, Sequence[nn.Module]]]
    loss: Callable[[int], Mapping[str, torch.Tensor]]
    prepare: Callable[[], None] = lambda: None


class Run:
    """Trains modules through phases. Equal settings give equal weights, bit for bit, however often it is killed."""

    def __init__(
        self,
        folder: pathlib.Path,
        modules: Mapping[str, nn.Module],
        phases: Sequence[Phase],
        *,
        settings: Mapping[str, object],
        save_every: int = 100,
    ) -> None:
        self.folder, self.modules, self.phases = folder, modules, phases
        self.settings, self.save_every = dict(settings), save_every
        self.phase, self.step, self._optimizer_state = 0, 0, None

    def resume(self) -> bool:
        """Go back to the last snapshot; False if there is none. Raises TrainingError if it was made otherwise."""
        path = self.folder / SNAPSHOT
        if not path.is_file():
            self._forget_later_metrics()
            return False
        saved = torch.load(path, weights_only=True)
        if saved["settings"] != self.settings:
            changed = {k for k in self.settings | saved["settings"] if self.settings.get(k) != saved["settings"].get(k)}
            raise TrainingError(
                f"{path} was trained with other settings: {', '.join(sorted(changed))} differ. "
                "Give the same options as then, or another --out"
            )
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        self.phase, self.step, self._optimizer_state = saved["phase"], saved["step"], saved["optimizer"]
        self._forget_later_metrics()
        return True

    def train(self, advance: Callable[[str, int, Mapping[str, float]], None]) -> None:
        """Run what is left; advance(phase name, steps done, last metrics) is called after every step."""
        while self.phase < len(self.phases):
            self._train_phase(self.phases[self.phase], advance)
            self.phase, self.step, self._optimizer_state = self.phase + 1, 0, None
            self._save(None)

    def _train_phase(self, phase: Phase, advance: Callable[[str, int, Mapping[str, float]], None]) -> None:
        optimizer = make_optimizer(phase)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        if not self.step:
            phase.prepare()
        while self.step < phase.steps:
            metrics = self._update(phase, optimizer)
            self.step += 1
            self._log(phase, metrics)
            advance(phase.name, self.step, metrics)
            if self.step % self.save_every == 0 and self.step < phase.steps:
                self._save(optimizer)

    def _update(self, phase: Phase, optimizer: torch.optim.AdamW) -> dict[str, float]:
        rate = schedule(self.step, phase.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        terms = phase.loss(self.step)
        total = torch.stack(list(terms.values())).sum()
        metrics = {name: float(value.detach()) for name, value in terms.items()}
        if not math.isfinite(float(total.detach())):
            raise TrainingError(
                f"the loss is not finite at step {self.step} of phase {phase.name}: {metrics}. Nothing was saved after "
                f"the snapshot in {self.folder}; start again in another --out with a lower --learning-rate"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return metrics | {"gradient_norm": float(norm), "rate": rate}

    def _log(self, phase: Phase, metrics: Mapping[str, float]) -> None:
        line = {"phase": phase.name, "step": self.step, **metrics}
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def _forget_later_metrics(self) -> None:
        """Drop the lines of steps that the snapshot does not hold and that will be taken again."""
        path = self.folder / METRICS
        order = {phase.name: i for i, phase in enumerate(self.phases)}
        kept = []
        for text in path.read_text().splitlines() if path.is_file() else []:
            try:
                line = json.loads(text)
            except ValueError:  # the line that a kill cut short
                continue
            if (order.get(line["phase"], -1), line["step"]) <= (self.phase, self.step):
                kept.append(text + "\n")
        path.write_text("".join(kept))

    def _save(self, optimizer: torch.optim.AdamW | None) -> None:
        """Write the snapshot aside and move it into place: there is always a whole one."""
        state = {
            "settings": self.settings,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": optimizer.state_dict() if optimizer else None,
            "phase": self.phase,
            "step": self.step,
        }
        partial = self.folder / f"{SNAPSHOT}.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / SNAPSHOT)


def make_optimizer(phase: Phase) -> torch.optim.AdamW:
    """AdamW over the phase's modules, each group at its own peak rate."""
    groups = [
        {"params": [p for module in modules for p in module.parameters()], "peak": peak}
        for peak, modules in phase.groups
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)


def schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then cosine down to FLOOR."""
    warm = max(1, round(WARM_UP * steps))
    return min(1.0, (step + 1) / warm) * (FLOOR + (1 - FLOOR) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
