"""Placement: the batch is split over all devices, the state over those of the axis `fsdp`."""

import itertools
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from train import config

MOST_HOST_DEVICES = 8
AXES = ("data", "fsdp")
SMALL = 1024
"""A leaf of fewer values is whole on every device: to gather it would take longer than to keep it."""


def make_mesh(batch: int, host_devices: int | None, *, fsdp: int = 1, accumulate: int = 1) -> Mesh:
    """The mesh [data, fsdp] over every accelerator of every process, or over `host_devices` CPU devices of each.

    CPU devices must be made before jax starts its backend: on two cores two devices with half the batch each train
    faster than one device with two threads. `host_devices` None: one per core, at most 8, dividing the batch.
    Raises ConfigError where the batch does not divide over devices and `accumulate`, or the devices over `fsdp`.
    """
    if host_devices is not None and host_devices < 1:
        raise config.ConfigError(f"--host-devices is {host_devices}, expected at least 1")
    devices = _devices(batch, host_devices, accumulate)
    if batch % (len(devices) * accumulate):
        parts = f"{len(devices)} devices" + (f" in {accumulate} parts" if accumulate > 1 else "")
        raise config.ConfigError(f"--batch {batch} does not divide over {parts}; use a multiple of it")
    if len(devices) % fsdp:
        raise config.ConfigError(f"--fsdp {fsdp} does not divide {len(devices)} devices; use 1, or one that does")
    shape = (len(devices) // fsdp, fsdp)
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def _devices(batch: int, host_devices: int | None, accumulate: int) -> list[jax.Device]:
    share = max(batch // accumulate, 1)
    wanted = host_devices or default_host_devices(share)
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # the backend runs already, as in tests: its devices are what there is
        wanted = min(wanted, jax.local_device_count()) if host_devices is None else wanted
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return devices
    each = [[device for device in devices if device.process_index == i] for i in range(jax.process_count())]
    return [device for mine in each for device in _first(mine, wanted)]


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
    """The first axis is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def placement(mesh: Mesh, tree: Any) -> Any:
    """Where each leaf of the state lies: its largest axis that divides is split over `fsdp`; a SMALL one is whole."""
    parts = mesh.shape["fsdp"]

    def place(leaf: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % parts == 0]
        if parts == 1 or leaf.size < SMALL or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(place, tree)


def put(tree: Any, mesh: Mesh) -> Any:
    """The state on the devices by `placement`; every process brings the same values."""
    places = placement(mesh, tree)
    return jax.device_put(tree, places) if jax.process_count() == 1 else jax.tree.map(_put_part, tree, places)


def _put_part(leaf: Any, place: NamedSharding) -> Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == place:
        return leaf
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])


def make_key(seed: int, mesh: Mesh) -> Array:
    """A random key on every device."""
    return jax.jit(lambda: jax.random.key(seed), out_shardings=replicated(mesh))()


def rows(mesh: Mesh, batch: int) -> slice:
    """Which rows of each batch this process reads."""
    parts = split(mesh).addressable_devices_indices_map((batch,)).values()
    bounds = sorted(index[0].indices(batch)[:2] for index in parts)
    if any(end != start for (_, end), (start, _) in itertools.pairwise(bounds)):
        raise config.ConfigError(f"the devices of process {jax.process_index()} are not neighbours in {mesh}")
    return slice(bounds[0][0], bounds[-1][1])


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts a pytree of host arrays [b, ...] on the devices, split along the batch; b: the rows of this process."""
    place = split(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, place)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(place, leaf), batch)


def shared(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: a tree like the parameters, in the shares of `placement`."""
    return tree if mesh.shape["fsdp"] == 1 else jax.lax.with_sharding_constraint(tree, placement(mesh, tree))


def gathered(params: Any, mesh: Mesh) -> Any:
    """Inside jit: whole parameters for a forward pass; their gradient comes back in the shares of `placement`."""
    if mesh.shape["fsdp"] == 1:
        return params

    @jax.custom_vjp
    def gather(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, replicated(mesh))

    def backward(_: None, gradient: Any) -> tuple[Any]:
        return (shared(gradient, mesh),)

    gather.defvjp(lambda tree: (gather(tree), None), backward)
    return gather(params)
