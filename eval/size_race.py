"""The race at full size: students, twins and teachers in processes of their own, in heats that fit into memory."""

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from eval import energy, timing
from eval.energy import NoEnergy

MEMINFO = pathlib.Path("/proc/meminfo")
OVERHEAD = 1.25
"""A process needs this times its weights: activations, libraries, what torch.compile keeps."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One process of the race."""

    name: str
    command: list[str]
    modes: tuple[str, ...] = ("",)
    """Lanes over the same weights: each is asked for by its mode, and called `name_mode`."""
    weights: int = 0
    """Bytes, as far as they are known before it starts."""
    batches: tuple[int, ...] = ()
    """Rows at which throughput is measured beside one."""
    shares: tuple[float, ...] = ()
    """Of the full budget, at which its calls are timed too."""
    shape: dict | None = None
    """Of the product at whose matrix rate it is held against the hardware."""

    def lane(self, mode: str) -> str:
        """The name of a lane."""
        return f"{self.name}_{mode}" if mode else self.name


@dataclasses.dataclass
class Found:
    """What the race gave, as it is kept on disk between runs."""

    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """Of each call, by lane; `lane@batch` for more rows than one, `lane@share` for less than the full budget."""
    joules: dict[str, float] = dataclasses.field(default_factory=dict)
    """Per call, by lane."""
    facts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """By process: its `ready` line, `peak_bytes`, `flops_per_s`, `bought` (steps by module, by share)."""
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    """By process or lane: why it has no numbers; "energy" for the machine."""
    busy: list[float] = dataclasses.field(default_factory=list)
    """Share of the cores that other work kept busy, by heat."""

    def take(self, other: "Found") -> None:
        """Add another heat: lanes that ran in both have the calls of both."""
        for name, seconds in other.seconds.items():
            self.seconds.setdefault(name, []).extend(seconds)
        self.joules |= other.joules
        self.reasons |= other.reasons
        self.busy += other.busy
        for name, facts in other.facts.items():
            self.facts[name] = facts | self.facts.get(name, {})

    def samples(self, lane: str) -> np.ndarray | None:
        """Seconds [n] of a lane."""
        return np.array(self.seconds[lane]) if self.seconds.get(lane) else None


def run(
    small: Sequence[Entry],
    heavy: Sequence[Entry],
    *,
    plan: timing.Plan,
    device: str,
    out: pathlib.Path,
    resume: bool,
    of: dict[str, Any],
    tick: Callable[[str, int, int], None],
) -> Found:
    """A heat for every heavy entry, one after another, each beside all small ones; then the small ones' batches.

    out: a folder that keeps every heat as it ends; resume: heats that it has are not run again, if they are `of` the
    same race (JSON).
    """
    found = Found()
    heats = [(entry.name, [entry]) for entry in heavy] or [("alone", [])]
    for index, (name, guests) in enumerate(heats):
        path = out / f"heat_{name}.json"
        if not (resume and _kept(path) == of):
            what = f"heat {index + 1} of {len(heats)}: {name}"
            tick(what, 0, 1)
            heat = _heat([*guests, *small], plan, device=device, last=index == len(heats) - 1)
            out.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".part").write_text(json.dumps({"of": of, "found": dataclasses.asdict(heat)}))
            path.with_suffix(".part").replace(path)
            tick(what, 1, 1)
        found.take(Found(**json.loads(path.read_text())["found"]))
    return found


def _kept(path: pathlib.Path) -> dict[str, Any] | None:
    """Of which race a heat is."""
    return json.loads(path.read_text()).get("of") if path.is_file() else None


def _heat(entries: Sequence[Entry], plan: timing.Plan, *, device: str, last: bool) -> Found:
    """One heat; other batches and budgets, and the matrix rates, are measured in the last alone."""
    found = Found()
    with contextlib.ExitStack() as stack:
        present = _start(stack, entries, found)
        meter = _meter(stack, device, found)
        lanes = [lane for entry, process in present for lane in _lanes(entry, process)]
        found.busy.append(timing.race(lanes, plan, meter))
        for entry, process in present:
            found.facts[entry.name] = process.facts | _asked(process, "memory", do="memory")
        _keep(lanes, found, energy=meter is not None)
        if last:
            _variants(present, plan, found)
            for entry, process in present:
                if entry.shape:
                    found.facts[entry.name] |= _asked(process, "rate", do="rate", shape=entry.shape)
    return found


def _start(
    stack: contextlib.ExitStack, entries: Sequence[Entry], found: Found
) -> list[tuple[Entry, timing.Contestant]]:
    """Those that started, in order: the small ones two at a time, the heavy ones each with what is then free."""
    order = sorted(entries, key=lambda entry: entry.weights)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = {entry.name: pool.submit(_process, entry) for entry in order if not entry.weights}
    present = []
    for entry in order:
        try:
            process = futures[entry.name].result() if entry.name in futures else _process(entry)
        except timing.Unavailable as reason:
            found.reasons[entry.name] = str(reason)
            continue
        present.append((entry, stack.enter_context(process)))
    return present


def _process(entry: Entry) -> timing.Contestant:
    """Raises Unavailable where there is no room for it, or it does not start."""
    if reason := _too_large(entry):
        raise timing.Unavailable(reason)
    return timing.Contestant(entry.command, limit=1800)


def _too_large(entry: Entry) -> str:
    """Why a process cannot be started; "" where memory suffices or nobody tells."""
    need, free = entry.weights * OVERHEAD, _free_bytes()
    if free is None or need <= free:
        return ""
    return f"needs about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free"


def _free_bytes() -> int | None:
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _meter(stack: contextlib.ExitStack, device: str, found: Found) -> energy.Packages | energy.Graphics | None:
    try:
        return stack.enter_context(contextlib.closing(energy.meter(device)))
    except NoEnergy as reason:
        found.reasons["energy"] = str(reason)
        return None


def _lanes(entry: Entry, process: timing.Contestant, **request: float) -> Iterator[timing.Lane]:
    for mode in entry.modes:
        asked = request | ({"mode": mode} if mode else {})
        name = "@".join([entry.lane(mode), *map(str, request.values())])
        yield timing.Lane(name, process, "actions", request=asked)


def _variants(present: Sequence[tuple[Entry, timing.Contestant]], plan: timing.Plan, found: Found) -> None:
    """More rows than one, and smaller budgets, in turns too, with a fifth of the time."""
    short = dataclasses.replace(plan, rounds=min(plan.rounds, 3), seconds=plan.seconds / 5)
    lanes = []
    for entry, process in present:
        asked = [{"batch": batch} for batch in entry.batches] + [{"share": share} for share in entry.shares]
        lanes += [lane for request in asked for lane in _lanes(entry, process, **request)]
        for share in entry.shares:
            said = _asked(process, "steps", do="steps", share=share)
            found.facts[entry.name].setdefault("bought", {})[str(share)] = said.get("steps", {})
    timing.race(lanes, short)
    _keep(lanes, found, energy=False)


def _asked(process: timing.Contestant, wanted: str, **request: Any) -> dict[str, Any]:
    """An answer, or nothing from a process that has died: its lanes say why."""
    try:
        return process.ask(wanted, **request)
    except timing.Unavailable:
        return {}


def _keep(lanes: Sequence[timing.Lane], found: Found, *, energy: bool) -> None:
    for lane in lanes:
        found.seconds[lane.name] = lane.samples.tolist()
        if lane.failure:
            found.reasons[lane.name] = lane.failure
        if energy and lane.calls:
            found.joules[lane.name] = lane.joules / lane.calls


def module(name: str, *arguments: object) -> list[str]:
    """A command of this project with this interpreter."""
    return [sys.executable, "-m", name, *map(str, arguments)]
