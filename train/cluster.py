"""The processes that train together: joining them, who speaks for all, and stopping together."""

import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from train import config, scale, sharding

HEARTBEAT = 20
"""Seconds of silence after which a process counts as lost and the others end."""
TIMEOUT = 300
"""Seconds to wait for all processes to start."""


def join(options: scale.Cluster) -> None:
    """Joins the processes; before anything else of jax starts. ConfigError where they do not come together."""
    if not options.coordinator:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # gloo knows messages by their order alone
    named = options.coordinator != "auto"
    try:
        jax.distributed.initialize(
            options.coordinator if named else None,
            options.processes,
            options.process,
            initialization_timeout=TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (ValueError, RuntimeError) as error:
        raise config.ConfigError(
            f"--coordinator {options.coordinator}: {error}. Start every process with the same HOST:PORT, reachable "
            "from all, and --process 0, 1, ...; `auto` only inside srun, mpirun or a Kubernetes Job"
        ) from error


def leads() -> bool:
    """Whether this process writes and prints for all."""
    return jax.process_index() == 0


def led(act: Callable[[], Any]) -> None:
    """Does something once, in the first process, before any other goes on; where it fails there, it fails in all."""
    if jax.process_count() == 1:
        act()
        return
    failure = None
    if leads():
        try:
            act()
        except config.ConfigError as error:
            failure = error
    failed = bool(multihost_utils.broadcast_one_to_all(np.int32(failure is not None)))
    if failure:
        raise failure
    if failed:
        raise config.ConfigError("the first process could not begin (see its message)")


def joined() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized()


def ended(code: int) -> int:
    """The exit code of a failure; of several processes this one ends with it at once, because a shutdown in order would
    wait for the others, who may wait for it: they notice within HEARTBEAT."""
    if joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


STOP = "signal"
"""Name under which `Agreement` travels with the metrics."""


class Agreement:
    """Lets all processes stop after the same step when a signal reached any of them."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._most = jax.jit(lambda flags: flags.max(), out_shardings=sharding.replicated(mesh))

    def __call__(self, signal: int) -> dict[str, Any]:
        """The largest signal of any process, to be read with the step's metrics; nothing where one process is alone."""
        if jax.process_count() == 1:
            return {}
        flags = np.full(self._mesh.local_mesh.size, signal, np.int32)
        return {STOP: self._most(sharding.shard_batch(flags, self._mesh))}
