"""Several simulators in worker processes, moved in rounds so that a policy can be asked for all of them at once."""

from __future__ import annotations

import dataclasses
import multiprocessing
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import numpy as np

from bridge import demonstration, scene

PROCESSES = 2
SCENES = 4


class Lanes:
    """`processes` workers with `scenes` simulators each; lane i is scene i // processes of worker i % processes.

    What lane does what is fixed by the order of the jobs, never by timing. Use it as a context manager.
    """

    def __init__(self, processes: int = PROCESSES, scenes: int = SCENES) -> None:
        if processes < 1 or scenes < 1:
            raise ValueError(f"Lanes needs at least one process and one scene, got {processes} and {scenes}")
        self.count = processes * scenes
        spawn = multiprocessing.get_context("spawn")
        pairs = [spawn.Pipe() for _ in range(processes)]
        self._pipes = [ours for ours, _ in pairs]
        self._workers = [spawn.Process(target=_serve, args=(theirs, scenes), daemon=True) for _, theirs in pairs]
        for worker in self._workers:
            worker.start()

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        for pipe, worker in zip(self._pipes, self._workers, strict=True):
            if worker.is_alive():
                pipe.send(None)
        for worker in self._workers:
            worker.join(10)
            if worker.is_alive():
                worker.kill()
        self._workers = []

    def round(self, commands: Sequence[tuple[int, tuple]]) -> list:
        """Send (lane, command) pairs, all at once; their answers in the same order."""
        for lane, command in commands:
            self._pipes[lane % len(self._pipes)].send((lane // len(self._pipes), command))
        return [self._receive(lane) for lane, _ in commands]

    def demonstrations(self, jobs: Sequence[demonstration.Job]) -> Iterator[demonstration.Demonstration]:
        """One scripted demonstration per job, in the order of the jobs."""
        ahead = len(self._pipes)
        for lane, job in enumerate(jobs[:ahead]):
            self._pipes[lane].send((0, ("demonstrate", job)))
        for index in range(len(jobs)):
            yield self._receive(index % ahead)
            if index + ahead < len(jobs):
                self._pipes[index % ahead].send((0, ("demonstrate", jobs[index + ahead])))

    def _receive(self, lane: int):
        try:
            failed, answer = self._pipes[lane % len(self._pipes)].recv()
        except (EOFError, OSError) as error:
            raise scene.SimulatorError(
                "a simulator process died: out of memory, no EGL (the README names the GL libraries), or a script "
                'started it without `if __name__ == "__main__":`'
            ) from error
        if failed:
            raise scene.SimulatorError(f"a simulator failed:\n{answer}")
        return answer


@dataclasses.dataclass(frozen=True)
class Moved:
    """What a lane answers: the view after its actions, actions executed, and every view in between if asked for."""

    view: scene.View
    steps: int
    frames: np.ndarray | None = None


def _serve(pipe: Connection, count: int) -> None:
    scenes = [scene.Scene() for _ in range(count)]
    try:
        while (message := pipe.recv()) is not None:
            index, command = message
            try:
                pipe.send((False, _COMMANDS[command[0]](scenes[index], *command[1:])))
            except Exception:  # noqa: BLE001 - sent to the parent, which raises it
                pipe.send((True, traceback.format_exc()))
    except (EOFError, KeyboardInterrupt):
        pass
    for one in scenes:
        one.close()


def _reset(one: scene.Scene, task: str, seed: int, light: scene.Light, blind: bool) -> Moved:
    one.reset(task, seed, light=light, blind=blind)
    return Moved(one.view(), 0)


def _step(one: scene.Scene, actions: np.ndarray, record: bool) -> Moved:
    """Execute actions [n, 4] until success; with `record`, every frame on the way is kept."""
    frames, steps = [], 0
    while steps < len(actions) and not one.success:
        one.step(actions[steps])
        steps += 1
        if record:
            frames.append(one.view().frames)
    return Moved(one.view(), steps, np.stack(frames) if record else None)


_COMMANDS = {"reset": _reset, "step": _step, "demonstrate": demonstration.perform}
