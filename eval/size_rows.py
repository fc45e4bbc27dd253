"""Rows of the race at full size: what everybody costs, and the student over each of them."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval import report, statistics
from eval.size_race import Found
from eval.speed import QUIET

JUDGED = ("sage_48m", "full-size")
NEEDED = "sage_48m, taking every step, against the full-size teacher, on a machine that nobody else uses"
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
CPU_BARS = {"over_eager_teacher": 50.0, "over_compiled_teacher": 25.0}
MB_BARS = {"bfloat16": 97.0, "int8": 50.0}
GPU_BARS = {"p50": 1.0, "p99": 2.0}
RSS_BAR, OVER_HARDWARE_BAR, XLA_BAR, FASTEST_BAR, SMALLER_BAR = 700.0, 2.0, 1.5, 1.0, 60.0


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is raced."""

    preset: str
    teacher: str
    device: str
    folders: dict[str, pathlib.Path]
    """Artifacts of the student by type."""
    metas: dict[str, dict[str, Any]]
    """Their meta.json."""

    @property
    def parameters(self) -> int:
        """Values of the student as it is shipped."""
        return self.metas["float32"]["parameters"]

    def identity(self) -> dict[str, Any]:
        """What must be the same for two heats to be of one race."""
        files = {dtype: meta["files"] for dtype, meta in self.metas.items()}
        return {"preset": self.preset, "teacher": self.teacher, "device": self.device, "files": files}


class Book:
    """Writes the rows of one race."""

    def __init__(self, bench: Bench, found: Found, context: report.Context, *, seed: int):
        self.bench, self.found, self.context, self.seed = bench, found, context, seed
        self.busy = max(found.busy, default=0.0)

    @property
    def fastest(self) -> str | None:
        """The student's lane of the smallest median."""
        return self._fastest([name for name in self.lanes if name.startswith("student_")])

    @property
    def lanes(self) -> list[str]:
        """Those that have times, and those that have none but a reason; batches apart."""
        names = dict.fromkeys([*self.found.seconds, *self.found.reasons])
        return [name for name in names if "@" not in name and name != "energy"]

    def rows(self) -> list[report.Row]:
        """Everything: by lane, then the sizes, then the ratios."""
        rows = [row for name in self.lanes for row in self._lane(name)]
        rows += [row for name in self.found.facts for row in self._process(name)]
        note = f"of the cores, by other work, in the busiest heat; above {QUIET:g} no ratio is given"
        rows += [self._row("size.machine.busy", self.busy, "share", note=note)]
        return [*rows, *self._weights(), *self._teacher(), *self._ratios(), *self._hardware()]

    def _lane(self, name: str) -> list[report.Row]:
        """Latency, throughput and energy of one lane."""
        samples, rng = self.found.samples(name), np.random.default_rng(self.seed)
        if samples is None:
            return [self._row(f"size.{name}.p50", None, "ms", note=self._why(name))]
        rows = []
        for label, quantile in QUANTILES.items():
            got = statistics.median_interval(samples * 1000, rng, quantile=quantile)
            few = "fewer calls than this quantile needs" if samples.size < 1 / (1 - quantile) else ""
            bar = GPU_BARS.get(label) if self.bench.device == "cuda" and name == self.fastest else None
            rows.append(self._row(f"size.{name}.{label}", got.value, "ms", of=got, n=samples.size, note=few, bar=bar))
        rows += [self._throughput(name, batch) for batch in self._batches(name)]
        rows += [self._dialled(name, share) for share in self.found.facts.get(name, {}).get("bought", {})]
        joules, reason = self.found.joules.get(name), self.found.reasons.get("energy", "no meter in this heat")
        note = "of the whole package, per call, idle power included" if joules is not None else reason
        return [*rows, self._row(f"size.{name}.energy", joules, "J", note=note)]

    def _batches(self, name: str) -> list[int]:
        marks = [key.rpartition("@")[2] for key in self.found.seconds if key.startswith(f"{name}@")]
        return [1, *sorted(int(mark) for mark in marks if mark.isdigit())]

    def _dialled(self, name: str, share: str) -> report.Row:
        """Latency at a share of the full budget."""
        row_id, samples = f"size.{name}.p50_at_{100 * float(share):.0f}", self.found.samples(f"{name}@{share}")
        if samples is None:
            return self._row(row_id, None, "ms", note=self._why(f"{name}@{share}"))
        taken = ", ".join(f"{steps} of {part}" for part, steps in self.found.facts[name]["bought"][share].items())
        got = statistics.median_interval(samples * 1000, np.random.default_rng(self.seed))
        note = f"at so many percent of the full budget: steps {taken}; not in turns with the teacher"
        return self._row(row_id, got.value, "ms", of=got, n=samples.size, note=note)

    def _throughput(self, name: str, batch: int) -> report.Row:
        key = name if batch == 1 else f"{name}@{batch}"
        samples, row_id = self.found.samples(key), f"size.{name}.throughput_b{batch}"
        if samples is None:
            return self._row(row_id, None, "observations/s", note=self._why(key), better="higher")
        rate = batch / float(np.median(samples))
        return self._row(row_id, rate, "observations/s", n=samples.size, better="higher")

    def _process(self, name: str) -> list[report.Row]:
        """Memory and start of one process; eager and compiled lanes share one."""
        facts, rows = self.found.facts[name], []
        if (peak := facts.get("peak_bytes")) is not None:
            bar = RSS_BAR if name == self._process_of(self.fastest) else None
            note = "of its own process, interpreter and libraries included; before larger batches"
            rows.append(self._row(f"size.{name}.peak_rss", peak / 1e6, "MB", note=note, bar=bar))
        if (device := facts.get("device_peak_bytes")) is not None:
            rows.append(self._row(f"size.{name}.peak_device", device / 1e6, "MB", note="allocated on the accelerator"))
        note = "first calls: compilation and a run of every lane"
        return [*rows, self._row(f"size.{name}.start", facts["compile_s"], "s", note=note)]

    def _process_of(self, lane: str | None) -> str | None:
        """The process of a lane: the longest name that it begins with."""
        names = [name for name in self.found.facts if lane and lane.startswith(name)]
        return max(names, key=len, default=None)

    def _weights(self) -> list[report.Row]:
        meta, rows = self.bench.metas["float32"], []
        for dtype, folder in self.bench.folders.items():
            size = (folder / "weights.safetensors").stat().st_size / 1e6
            bar = MB_BARS.get(dtype)
            rows.append(self._row(f"size.student_{dtype}.weights", size, "MB", note="weights.safetensors", bar=bar))
        note = "constants included; modules: " + ", ".join(meta["modules"])
        return [*rows, self._row("size.student.parameters", meta["parameters"], "values", note=note)]

    def _teacher(self) -> list[report.Row]:
        """Size and work of the teacher; the student's weights against it."""
        costs = {name: facts["costs"]["actions"] for name, facts in self.found.facts.items() if "costs" in facts}
        rows = []
        for name, cost in costs.items():
            made = (("parameters", cost["parameters"], "values"), ("weights", cost["bytes"] / 1e6, "MB"))
            for label, value, unit in (*made, ("flops", cost["flops"] / 1e9, "GFLOP")):
                rows.append(self._row(f"size.{name}.{label}", value, unit))
        ours = (self.bench.folders["bfloat16"] / "weights.safetensors").stat().st_size
        theirs = costs.get("teacher_bfloat16", {}).get("bytes")
        note = "bytes of the teacher's weights over those of the student's, both in bfloat16"
        value = theirs / ours if theirs else None
        note = note if theirs else self._why("teacher_bfloat16")
        rows.append(self._row("size.student.smaller", value, "x", note=note, bar=SMALLER_BAR, better="higher"))
        return rows

    def _ratios(self) -> list[report.Row]:
        """The student over both teachers and over its twin."""
        teachers = {how: self._named("teacher_", f"_{how}") for how in ("eager", "compiled")}
        cpu, mine = self.bench.device == "cpu", self.fastest
        rows = []
        for how, names in teachers.items():
            label = f"over_{how}_teacher"
            bar = CPU_BARS[label] if cpu else None
            rows.append(self._ratio(f"size.student.{label}", self._fastest(names), mine, bar=bar, better="higher"))
        twin, xla = "twin_bfloat16_compiled", self._fastest(self._named("student_xla_", ""))
        ours = {"student": (mine, FASTEST_BAR), "student_xla": (xla, XLA_BAR)}
        for name, (lane, bar) in ours.items():
            row_id = f"size.{name}.over_compiled_twin"
            rows.append(self._ratio(row_id, lane, twin, bar=bar if cpu else None, better="lower"))
        return rows

    def _ratio(self, row_id: str, over: str | None, under: str | None, *, bar: float | None, better: str) -> report.Row:
        top, bottom = (self.found.samples(name) if name else None for name in (over, under))
        if top is None or bottom is None:
            absent = [name for name, samples in ((over, top), (under, bottom)) if samples is None]
            missing = "; ".join(f"{name}: {self._why(name)}" if name else "no such lane" for name in absent)
            return self._row(row_id, None, "x", note=missing, bar=bar, better=better)
        if self.busy > QUIET:
            note = f"{self.busy:.0%} of the cores were busy with other work: such a run favours whoever needs fewer"
            return self._row(row_id, None, "x", note=note, bar=bar, better=better)
        got = statistics.ratio_interval(top, bottom, np.random.default_rng(self.seed))
        note = f"p50 of {over} over p50 of {under}"
        return self._row(row_id, got.value, "x", of=got, n=bottom.size, note=note, bar=bar, better=better)

    def _hardware(self) -> list[report.Row]:
        """Work of the exported program, the matrix rate of this run, and each student's p50 over their quotient."""
        rows = []
        for name in self._named("student_", ""):
            facts, samples = self.found.facts.get(name, {}), self.found.samples(name)
            if samples is None or "flops_per_s" not in facts:
                continue
            meta = self.bench.metas[name.rpartition("_")[2]]
            flops, rate = work(meta, facts["steps"]), facts["flops_per_s"]
            shape = "{batch} x [{m}, {k}] x [{k}, {n}] {dtype}".format(**meta["matrix"])
            taken = ", ".join(f"{steps} steps of {part}" for part, steps in facts["steps"].items())
            over = float(np.median(samples)) * rate / flops
            bar = OVER_HARDWARE_BAR if name == self.fastest and self.bench.device == "cpu" else None
            note = f"p50 over what its products alone take at the measured rate: {1 / over:.0%} of it is reached"
            rows += [
                self._row(f"size.{name}.flops", flops / 1e9, "GFLOP", note=f"products of one observation: {taken}"),
                self._row(f"size.{name}.matrix_rate", rate / 1e9, "GFLOP/s", better="higher", note=f"in XLA: {shape}"),
                self._row(f"size.{name}.over_hardware", over, "x", note=note, bar=bar),
            ]
        return rows

    def _named(self, prefix: str, suffix: str) -> list[str]:
        return [name for name in self.lanes if name.startswith(prefix) and name.endswith(suffix)]

    def _fastest(self, names: Sequence[str]) -> str | None:
        timed = {name: samples for name in names if (samples := self.found.samples(name)) is not None}
        return min(timed, key=lambda name: float(np.median(timed[name])), default=None)

    def _why(self, name: str) -> str:
        reasons = self.found.reasons
        process = next((key for key in reasons if name.startswith(key)), "")
        return reasons.get(name) or reasons.get(process) or "not measured in this run"

    def _row(
        self,
        row_id: str,
        value: float | None,
        unit: str,
        *,
        of: statistics.Estimate | None = None,
        bar: float | None = None,
        better: str = "lower",
        n: int | None = None,
        note: str = "",
    ) -> report.Row:
        span = {"ci_low": of.low, "ci_high": of.high} if of else {}
        needs = "" if bar is None or self._judged(row_id) else NEEDED
        note = note or ("not measured in this run" if value is None else "")
        context = self.context
        if row_id.split(".")[1].startswith("teacher"):
            context = dataclasses.replace(context, preset="teacher", active_parameters=None)
        return report.Row(row_id, value, unit, context, bar=bar, better=better, n=n, note=note, needs=needs, **span)

    def _judged(self, row_id: str) -> bool:
        """Whether this run is what a bar is defined on. Sizes do not depend on the machine's peace, nor on steps."""
        same = (self.bench.preset, self.bench.teacher) == JUDGED
        if row_id.endswith((".weights", ".smaller", ".peak_rss")):
            return same
        most = self.bench.metas["float32"]["atp"]["max_steps"]
        taken = [facts["steps"] == most for facts in self.found.facts.values() if "steps" in facts]
        return same and all(taken) and self.busy <= QUIET


def work(meta: dict[str, Any], steps: dict[str, int]) -> float:
    """FLOPs of the products of one observation, at the steps taken."""
    atp = meta["atp"]
    return (sum(atp["base"].values()) + sum(atp["step"][name] * taken for name, taken in steps.items())) * atp[
        "flop_per_atp"
    ]
