"""The speed, memory and size suites: an exported student and its teacher in processes of their own, run in turns."""

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from eval import page, pictures, report, statistics, timing

OUTPUTS = ("image_tokens", "backbone_features")
TEACHERS = tuple(f"teacher_{dtype}_{mode}" for mode in ("eager", "compiled") for dtype in ("float32", "bfloat16"))
STUDENT = "student"
QUIET = 0.15  # share of busy cores up to which a ratio of two timings is reported
MEASURED = "uint8 observation to float32 arrays on the host, batch 1, warm, {n} calls in turns with the others"


@dataclasses.dataclass(frozen=True)
class Teacher:
    """How to start the teacher's timing process."""

    name: str
    max_tiles: int
    digest: str
    """Of the weights that made the store's features."""
    tokenizer: str = ""

    def commands(self, observation: pathlib.Path, *, compiled: bool, device: str) -> dict[str, list[str]]:
        """By contestant name; eager in both types, then compiled in both."""
        base = [sys.executable, "-m", "teacher_torch.timing", "--teacher", self.name, "--observation", str(observation)]
        base += ["--max-tiles", str(self.max_tiles), "--device", device]
        base += ["--tokenizer", self.tokenizer] if self.tokenizer else []
        variants = [("eager", [])] + [("compiled", ["--compile"])] * compiled
        return {
            f"teacher_{dtype}_{mode}": [*base, "--dtype", dtype, *flags]
            for mode, flags in variants
            for dtype in ("float32", "bfloat16")
        }


@dataclasses.dataclass(frozen=True)
class Speed:
    """What the race gave."""

    meta: dict
    """Of the artifact."""
    bytes: int
    """Of the artifact's weights."""
    facts: dict[str, dict]
    """Of each contestant that started: its `ready` line and `peak_bytes`; the student's also `flops_per_s`."""
    lanes: dict[str, np.ndarray]
    """`contestant.output` -> seconds of each call."""
    reasons: dict[str, str]
    """`contestant` or `contestant.output` -> why it has no numbers."""
    busy: float
    """Share of the cores that other work kept busy meanwhile."""


def measure(
    artifact: pathlib.Path, observation: pathlib.Path, teacher: Teacher, *, plan: timing.Plan, compiled: bool
) -> Speed:
    """Start everybody, run in turns, then ask for memory and for the matrix rate. Nobody's absence stops the others."""
    meta = json.loads((artifact / "meta.json").read_text())
    started = [sys.executable, "-m", "eval.clock", str(artifact), "--observation", str(observation)]
    with contextlib.ExitStack() as stack:
        student = stack.enter_context(timing.Contestant(started))
        device = "cuda" if student.facts["platform"] in ("gpu", "cuda") else "cpu"
        present, reasons = _start(stack, teacher.commands(observation, compiled=compiled, device=device), teacher)
        lanes = [timing.Lane(STUDENT, student, OUTPUTS[0])]
        lanes += [timing.Lane(name, process, output) for output in OUTPUTS for name, process in present.items()]
        busy = timing.race(lanes, plan)
        everybody = {STUDENT: student, **present}
        facts = {name: process.facts | _memory(process) for name, process in everybody.items()}
        shape = {key: meta["matrix"][key] for key in ("batch", "m", "k", "n", "dtype")}
        facts[STUDENT] |= student.ask("rate", do="rate", shape=shape)
    reasons |= {f"{lane.name}.{lane.output}": lane.failure for lane in lanes if lane.failure}
    samples = {f"{lane.name}.{lane.output}": lane.samples for lane in lanes if lane.seconds}
    return Speed(meta, (artifact / "weights.safetensors").stat().st_size, facts, samples, reasons, busy)


def _start(
    stack: contextlib.ExitStack, commands: dict[str, list[str]], teacher: Teacher
) -> tuple[dict[str, timing.Contestant], dict[str, str]]:
    """Contestants that started, and why the others did not. They start side by side: most of it is importing."""
    present, reasons = {}, {}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        futures = {name: pool.submit(timing.Contestant, command) for name, command in commands.items()}
    for name, future in futures.items():
        try:
            process = stack.enter_context(future.result())
        except timing.Unavailable as reason:
            reasons[name] = str(reason)
            continue
        if process.facts.get("digest") == teacher.digest:
            present[name] = process
        else:
            reasons[name] = f"{teacher.name} is not the teacher of this store: its weights have another digest"
    return present, reasons


def _memory(process: timing.Contestant) -> dict:
    try:
        return process.ask("memory", do="memory")
    except timing.Unavailable:
        return {}


@dataclasses.dataclass(frozen=True)
class Book:
    """Turns the race into rows."""

    speed: Speed
    context: report.Context
    seed: int

    def rows(self, teachers: Sequence[str]) -> list[report.Row]:
        """Latency, memory and size of the student and of every teacher asked for, present or not."""
        names = [(STUDENT, OUTPUTS[:1]), *((name, OUTPUTS) for name in teachers)]
        rows = [row for name, outputs in names for output in outputs for row in self._latency(name, output)]
        rows += [self._speedup(teachers), *self._hardware(), *self._compile(names)]
        note = f"of the cores, by other work, between the rounds; above {QUIET:g} these timings compare nothing"
        rows.append(self._row("speed.machine.busy", self.speed.busy, "share", note=note))
        for name, _ in names:
            rows += self._memory(name)
        return rows + self._sizes(teachers)

    def _latency(self, name: str, output: str) -> list[report.Row]:
        samples, rng = self.speed.lanes.get(f"{name}.{output}"), np.random.default_rng(self.seed)
        if samples is None:
            return [self._empty(f"speed.{name}.{output}_p50", "ms", self._reason(name, output))]
        rows = []
        for label, quantile, note in (("p50", 0.5, MEASURED.format(n=samples.size)), ("p95", 0.95, "")):
            got = statistics.median_interval(samples * 1000, rng, quantile=quantile)
            span = {"n": samples.size, "ci_low": got.low, "ci_high": got.high}
            rows.append(self._row(f"speed.{name}.{output}_{label}", got.value, "ms", **span, note=note))
        return rows

    def _speedup(self, teachers: Sequence[str]) -> report.Row:
        """Like for like: the same outputs, against the fastest teacher."""
        row_id, output = "speed.student.speedup", OUTPUTS[0]
        lanes = {
            name: self.speed.lanes[f"{name}.{output}"] for name in teachers if f"{name}.{output}" in self.speed.lanes
        }
        mine = self.speed.lanes.get(f"{STUDENT}.{output}")
        if not lanes or mine is None:
            return self._empty(row_id, "x", "no teacher was timed in this run")
        if self.speed.busy > QUIET:
            share = f"{self.speed.busy:.0%} of the cores were busy with other work"
            return self._empty(
                row_id, "x", f"{share}: no ratio from such a run, it favours whoever needs fewer threads"
            )
        fastest = min(lanes, key=lambda name: float(np.median(lanes[name])))
        got = statistics.ratio_interval(lanes[fastest], mine, np.random.default_rng(self.seed))
        note = f"p50 of {fastest} over p50 of the student, both to image tokens and vision attention"
        return self._row(
            row_id, got.value, "x", better="higher", n=mine.size, ci_low=got.low, ci_high=got.high, note=note
        )

    def _hardware(self) -> list[report.Row]:
        facts, atp = self.speed.facts[STUDENT], self.speed.meta["atp"]
        per_step = sum(atp["step"][name] * steps for name, steps in facts["steps"].items())
        flops = (sum(atp["base"].values()) + per_step) * atp["flop_per_atp"]
        taken = ", ".join(f"{steps} steps of {name}" for name, steps in facts["steps"].items())
        shape = "{batch} x [{m}, {k}] x [{k}, {n}] {dtype}".format(**self.speed.meta["matrix"])
        rate = facts["flops_per_s"]
        rows = [
            self._row("speed.student.flops", flops / 1e6, "MFLOP", note=f"matrix products of one observation: {taken}"),
            self._row("speed.student.matrix_rate", rate / 1e9, "GFLOP/s", better="higher", note=f"measured: {shape}"),
        ]
        samples = self.speed.lanes.get(f"{STUDENT}.{OUTPUTS[0]}")
        if samples is not None:
            ideal = flops / rate
            note = "p50 over what its products alone would take at the measured matrix rate"
            rows.append(self._row("speed.student.over_hardware", float(np.median(samples)) / ideal, "x", note=note))
        return rows

    def _compile(self, names: Sequence[tuple[str, tuple[str, ...]]]) -> list[report.Row]:
        """Apart from every latency: the first call of each output, compilation and one run."""
        started = [(name, self.speed.facts[name]["compile_s"]) for name, _ in names if name in self.speed.facts]
        return [
            self._row(f"speed.{name}.compile", seconds, "s", note="first calls: compilation and one run of each output")
            for name, seconds in started
            if not name.endswith("_eager")
        ]

    def _memory(self, name: str) -> list[report.Row]:
        facts, row_id = self.speed.facts.get(name, {}), f"memory.{name}.peak_rss"
        if "peak_bytes" not in facts:
            return [self._empty(row_id, "MB", self._reason(name))]
        note = "peak resident memory of its own process, interpreter and libraries included"
        rows = [self._row(row_id, facts["peak_bytes"] / 1e6, "MB", note=note)]
        if (device := facts.get("device_peak_bytes")) is not None:
            rows.append(
                self._row(f"memory.{name}.peak_device", device / 1e6, "MB", note="allocated on the accelerator")
            )
        return rows

    def _sizes(self, teachers: Sequence[str]) -> list[report.Row]:
        rows = [
            self._row("size.student.parameters", self.speed.meta["parameters"], "values", note="constants included"),
            self._row("size.student.weights", self.speed.bytes / 1e6, "MB", note="weights.safetensors"),
        ]
        for name in (name for name in teachers if name.endswith("_eager")):  # compiled, it is no larger
            for output, cost in self.speed.facts.get(name, {}).get("costs", {}).items():
                made = (("parameters", cost["parameters"], "values"), ("weights", cost["bytes"] / 1e6, "MB"))
                for label, value, unit in (*made, ("flops", cost["flops"] / 1e6, "MFLOP")):
                    rows.append(self._row(f"size.{name}.{output}_{label}", value, unit))
        return rows

    def _row(self, row_id: str, value: float, unit: str, *, better: str = "lower", **fields) -> report.Row:
        return report.Row(row_id, value, unit, self._context(row_id), better=better, **fields)

    def _empty(self, row_id: str, unit: str, reason: str) -> report.Row:
        return report.Row(row_id, None, unit, self._context(row_id), better="lower", note=reason)

    def _context(self, row_id: str) -> report.Context:
        if row_id.split(".")[1] == STUDENT:
            return self.context
        return dataclasses.replace(self.context, preset="teacher", active_parameters=None)

    def _reason(self, name: str, output: str = "") -> str:
        reasons = self.speed.reasons
        return reasons.get(f"{name}.{output}") or reasons.get(name) or "not measured with this preset"


def picture(speed: Speed) -> page.Picture:
    """Latency of every lane."""
    caption = "From a uint8 observation to float32 arrays, batch 1, warm, each in its own process, run in turns."
    return page.Picture("Latency", caption, pictures.latency(speed.lanes))
