"""Data-parallel placement: the batch is split over the devices, everything else is on each of them."""

import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train import config

MOST_HOST_DEVICES = 8


def make_mesh(batch: int, host_devices: int | None) -> Mesh:
    """A one-axis mesh `data` over every accelerator, or over `host_devices` CPU devices.

    CPU devices must be made before jax starts its backend: on two cores two devices with half the batch each train
    faster than one device with two threads. `host_devices` None: one per core, at most 8, dividing the batch.
    Raises ConfigError where the batch does not divide.
    """
    wanted = host_devices or default_host_devices(batch)
    if host_devices is not None and host_devices < 1:
        raise config.ConfigError(f"--host-devices is {host_devices}, expected at least 1")
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # the backend runs already, as in tests: its devices are what there is
        wanted = min(wanted, jax.device_count()) if host_devices is None else wanted
    devices = jax.devices()
    if devices[0].platform == "cpu":
        devices = _first(devices, wanted)
    if batch % len(devices):
        raise config.ConfigError(f"--batch {batch} does not divide over {len(devices)} devices; use a multiple of it")
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def _first(devices: list[jax.Device], wanted: int) -> list[jax.Device]:
    if wanted > len(devices):
        raise config.ConfigError(f"--host-devices is {wanted}, but jax already runs with {len(devices)}")
    return devices[:wanted]


def default_host_devices(batch: int) -> int:
    """The largest divisor of the batch among 1..min(usable cores, 8)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = min(cores, MOST_HOST_DEVICES)
    return max(count for count in range(1, most + 1) if batch % count == 0)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts a pytree of host arrays [b, ...] on the devices, split along the batch."""
    return jax.device_put(batch, split(mesh))
