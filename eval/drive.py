"""`python -m eval.drive`: Meta-World episodes through a policy server, as a robot would use it: the robot goes on
while the policy thinks, chunks are blended when they arrive, and a watchdog and limits stand before every command."""

import collections
import contextlib
import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tyro

from bridge import metaworld_tasks, scene, simulator
from eval import chunks, client, executor, guard, link, simulator_wire, ticker, videos

PERIOD_S = 1 / scene.FPS
STEP_M = 0.01 * scene.REPEAT
"""Metres that the hand moves in a tick when told 1.0."""
BOX = np.array([[-0.5, 0.4, 0.05], [0.5, 1.0, 0.5]])
"""Where the hand may be, in metres: the reach that Meta-World gives these tasks."""
MARGIN_M = 0.01
RELATIVE = np.array([True, True, True, False])
"""The hand is told displacements, the gripper a force."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Drive Meta-World episodes of validation placements through a running policy server (python -m eval.serve)."""

    url: str = "tcp://127.0.0.1:5555"
    """Of the server."""
    version: str = "n1.5"
    """Its --protocol: n1.5 or n1.6."""
    token: str = dataclasses.field(default="", repr=False)
    """Its token, if it has one."""
    task: str = "drawer-open"
    """Which task; one that the student was trained on."""
    episodes: int = 5
    """How many placements."""
    first: int = 0
    """Which placement comes first."""
    limit: int = simulator.LIMIT
    """Control ticks (25 ms) of an episode at most."""
    latency_ms: float | None = None
    """Pretend that every answer takes so long: repeatable. Default: what it really takes."""
    real_time: bool = False
    """On the clock of the wall, with requests from a thread, as on a robot: needs a machine that simulates 40 ticks a
    second beside the policy, else ticks are missed. Default: simulated time."""
    every: int = simulator.EXECUTE
    """Ticks between requests at least."""
    blend: chunks.Blend = chunks.Blend()  # noqa: RUF009 - frozen
    safety: executor.Safety = executor.Safety()  # noqa: RUF009 - frozen
    rate: float = 1.0
    """What a command may change by per tick at most; commands are in [-1, 1]."""
    out: pathlib.Path | None = None
    """Folder for drive.json."""
    video: bool = False
    """Film every episode into --out."""


USER_ERRORS = (ValueError, TimeoutError, client.ServerError, scene.SimulatorError)


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when the episodes were driven, 2 on bad input or a server that does not answer."""
    options = tyro.cli(Config, args=argv, prog="python -m eval.drive", description=Config.__doc__)
    try:
        check(options)
        with client.Client(options.url, token=options.token, version=options.version) as robot, scene.Scene() as world:
            found = drive(world, robot, options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "drive.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    said = {name: value for name, value in found.items() if name != "rows"}
    print("\n".join(f"{name:>12}  {value}" for name, value in said.items()))
    print(json.dumps(said))
    return 0


def check(options: Config) -> None:
    """Raises simulator_wire.DriveError for options that are out of range or do not go together."""
    if options.task not in metaworld_tasks.TASKS:
        raise simulator_wire.DriveError(f"--task {options.task}: expected one of {', '.join(metaworld_tasks.TASKS)}")
    for name in ("episodes", "limit", "every", "rate"):
        if not getattr(options, name) > 0:
            raise simulator_wire.DriveError(f"--{name} {getattr(options, name)}: expected a number > 0")
    if options.version not in ("n1.5", "n1.6"):
        raise simulator_wire.DriveError(f"--version {options.version}: expected n1.5 or n1.6")
    if options.latency_ms is not None and (options.real_time or not options.latency_ms >= 0):
        raise simulator_wire.DriveError("--latency-ms is for simulated time, without --real-time, and >= 0")
    if not options.url.startswith(("tcp://", "ipc://")):
        raise simulator_wire.DriveError(f"--url {options.url}: expected an address such as tcp://127.0.0.1:5555")
    try:
        metaworld_tasks.split_seeds("validation", options.episodes, first=options.first)
    except ValueError as error:
        raise simulator_wire.DriveError(f"--first {options.first} --episodes {options.episodes}: {error}") from error
    if options.video and options.out is None:
        raise simulator_wire.DriveError("--video needs --out, the folder for the films")


def drive(world: scene.Scene, robot: client.Client, options: Config) -> dict[str, Any]:
    """Drive all episodes; what happened. world: a Scene, or what acts as one."""
    wire = simulator_wire.Wire(robot)
    rows = []
    with ticker.Ticker() as tick:
        for seed in metaworld_tasks.split_seeds("validation", options.episodes, first=options.first):
            rows.append(episode(world, wire, options, seed))
            tick(options.task, 1, options.episodes)
    return summary(options, rows)


def episode(world: scene.Scene, wire: simulator_wire.Wire, options: Config, seed: int) -> dict[str, Any]:
    """One episode and what happened in it."""
    world.reset(options.task, seed)
    world.view()  # the first image takes seconds, which are not to be on the clock
    clock = _clock(real=options.real_time)
    started = next(clock)
    hand = executor.Executor(
        guard.Limits(-1.0, 1.0, options.rate),
        period_s=PERIOD_S,
        started=started,
        start=np.zeros(4),
        relative=RELATIVE,
        blend=options.blend,
        safety=options.safety,
    )
    with _link(wire, options) as line:
        found = _loop(world, wire, hand, line, clock, options, metaworld_tasks.instruction(options.task, seed))
    if options.video:
        videos.write(options.out / f"{options.task}-{seed}.mp4", videos.flat(np.stack(found["frames"])))
    hits, counts = dataclasses.asdict(hand.guard.hits), dataclasses.asdict(hand.counts)
    row = {"seed": seed, "success": world.success} | {name: found[name] for name in ("ticks", "latency_ms", "why")}
    return row | {"counts": counts, "hits": hits, "lost": line.lost}


def _loop(
    world: scene.Scene,
    wire: simulator_wire.Wire,
    hand: executor.Executor,
    line: link.Link,
    clock: Iterator[float],
    options: Config,
    instruction: str,
) -> dict[str, Any]:
    """The control loop itself: once per tick receive, command, and now and then look and ask."""
    asked, latencies, frames, now = -options.every, [], [], hand.started
    why = collections.Counter()
    for tick in range(options.limit):
        answers = [line.receive(now)]
        if line.free and tick - asked >= options.every:
            line.send(wire.observation(world.view(), instruction), now)
            asked = tick
            answers.append(line.receive(now))  # at once, where there is no latency
        for answer in filter(None, answers):
            latencies.append(answer.latency_s * 1e3)
            try:
                hand.offer(answer.actions, observed_at=answer.observed_at, now=now)
            except (TypeError, ValueError) as error:  # another robot's, or no numbers
                line.lost.append(link.said(error))
        bounds = guard.box(world.state()[:3], low=BOX[0] + MARGIN_M, high=BOX[1] - MARGIN_M, step=STEP_M)
        low, high = (np.append(bound, far) for bound, far in zip(bounds, (-np.inf, np.inf), strict=True))
        command = hand.step(now, low=low, high=high)
        why.update(filter(None, [command.reason]))
        world.step(command.action)
        if options.video:
            frames.append(world.view().frames)
        if world.success or command.state == "stop":
            break
        now = next(clock)
    return {"ticks": tick + 1, "latency_ms": latencies, "frames": frames, "why": dict(why)}


def _clock(*, real: bool) -> Iterator[float]:
    """When each tick begins: at once in simulated time, else after waiting for it on the clock of the wall, where
    ticks that have begun already are missed."""
    started, tick = time.monotonic() if real else 0.0, 0
    while True:
        if real:
            time.sleep(max(0.0, started + tick * PERIOD_S - time.monotonic()))
        yield time.monotonic() if real and tick else started + tick * PERIOD_S
        tick = max(tick + 1, math.ceil((time.monotonic() - started) / PERIOD_S - 1e-6)) if real else tick + 1


def _link(wire: simulator_wire.Wire, options: Config) -> contextlib.AbstractContextManager[link.Link]:
    if options.real_time:
        return link.Threaded(wire.ask)
    return contextlib.nullcontext(
        link.Timed(wire.ask, None if options.latency_ms is None else options.latency_ms / 1e3)
    )


def summary(options: Config, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a reader wants to know of the rows."""
    latencies = np.array([value for row in rows for value in row["latency_ms"]])
    total: Callable[[str], dict] = lambda kind: {  # noqa: E731
        name: sum(row[kind][name] for row in rows) for name in rows[0][kind]
    }
    reasons = sum((collections.Counter(row["why"]) for row in rows), collections.Counter())
    held = [f"{reason}: {ticks} ticks" for reason, ticks in reasons.most_common()]
    solved = sum(row["success"] for row in rows)
    percentiles = {f"p{q}": round(float(np.percentile(latencies, q)), 2) for q in (50, 95)} if len(latencies) else {}
    return {
        "task": options.task,
        "success": f"{solved}/{len(rows)}",
        "ticks": sum(row["ticks"] for row in rows),
        "latency_ms": percentiles,
        "commands": total("counts"),
        "limited": total("hits"),
        "lost": sum(len(row["lost"]) for row in rows),
        "why": [*sorted({reason for row in rows for reason in row["lost"]})[:3], *held],
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
