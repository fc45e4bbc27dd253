"""What a run takes of a device, predicted from its compiled step before it starts."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from train import config, program, sharding, state

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes are those of one device, the fullest."""

    parameters: int
    """Trainable values, of the whole model."""
    state: dict[str, int]
    """Bytes of parameters, averages, optimiser state and all that is frozen."""
    batch: int
    """Bytes of one batch; there are two, the one in use and the next."""
    working: int
    """Bytes that the step needs beside state and batch: gradients, activations, and what it puts in their place."""
    limit: int | None
    """Bytes that the device has to give, where it says so."""

    @property
    def peak(self) -> int:
        return sum(self.state.values()) + 2 * self.batch + self.working

    def told(self) -> str:
        """What it says, in a line."""
        return (
            f"memory of a device: about {mebibytes(self.peak)}, of which {mebibytes(sum(self.state.values()))} state, "
            f"{mebibytes(2 * self.batch)} batches, {mebibytes(self.working)} gradients and activations"
        )

    def rows(self) -> list[tuple[str, str]]:
        """The same, line by line."""
        kept = [(f"state: {name}", mebibytes(size)) for name, size in self.state.items()]
        return [
            ("trainable parameters", f"{self.parameters:,}"),
            *kept,
            ("batches (this one, the next)", mebibytes(2 * self.batch)),
            ("gradients and activations", mebibytes(self.working)),
            ("predicted peak", mebibytes(self.peak)),
            ("device limit", mebibytes(self.limit) if self.limit else "not told"),
        ]

    def check(self) -> None:
        """ConfigError where the device is too small, naming what makes a run smaller."""
        if self.limit is not None and self.peak > self.limit:
            raise config.ConfigError(
                f"a step needs about {mebibytes(self.peak)} of each device, which has {mebibytes(self.limit)}: run the "
                "batch in parts (--accumulate 2, 4, ...), recompute activations (--remat), split the state over "
                "devices (--fsdp), or take a smaller --batch"
            )


Arguments = tuple[state.TrainState, Any, Any]
"""State, batch and key of a step, as jax.ShapeDtypeStruct with shardings."""


def arguments(now: state.TrainState, rows: Any, batch: int, mesh: Mesh) -> Arguments:
    """Of a step of `batch` samples. rows: host arrays of the samples of this process, for their shapes."""
    split, whole = sharding.split(mesh), sharding.replicated(mesh)
    given = {name: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype, sharding=split) for name, x in rows.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    return shapes(now, mesh), given, jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)


def shapes(now: state.TrainState, mesh: Mesh) -> state.TrainState:
    """The state's leaves as jax.ShapeDtypeStruct that say where they lie."""

    def shape(leaf: Any, place: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(shape, now, sharding.placement(mesh, now))


def predict(step: program.Program, given: Arguments, mesh: Mesh) -> Footprint:
    """Compiles the step, once for this and for its calls."""
    now, batch, _ = given
    memory = step.compiled(*given).memory_analysis()
    return Footprint(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(now.params)),
        state={name: held(getattr(now, name)) for name in ("params", "ema", "opt_state", "frozen")},
        batch=held(batch),
        working=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        limit=limit(mesh),
    )


def flops(step: program.Program, given: Arguments) -> float:
    """Of a step over all devices, before XLA optimises it; of a loop it counts the body once, so give it a step that
    neither accumulates nor recomputes."""
    return float(step.jitted.lower(*given).cost_analysis()["flops"])


def held(tree: Any) -> int:
    """Bytes of a device that a pytree of arrays or shapes with shardings takes."""
    parts = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(tree)]
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in parts)


def limit(mesh: Mesh) -> int | None:
    """Bytes that the smallest device of this process has to give; None where it does not say, as a CPU."""
    told = [(device.memory_stats() or {}).get("bytes_limit") for device in mesh.local_devices]
    return min(told) if all(told) else None


def mebibytes(size: int) -> str:
    """Whole MiB, in words."""
    return f"{size / MIB:,.0f} MiB"
