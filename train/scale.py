"""The options of scale: how a step is cut over devices and time, and which processes train together; no jax."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a step is cut. The results stay what they are, up to rounding."""

    fsdp: int = 1
    """Devices that share one copy of parameters, averages and optimiser state (fully sharded training); the batch is
    split over all devices whatever this is. 1: every device holds everything (data-parallel)."""
    accumulate: int = 1
    """Parts of a batch that run one after another within a step: less memory for activations, the same step."""
    remat: bool = False
    """Compute the inner values of blocks and readouts again in the backward pass instead of keeping them: less memory
    on an accelerator for about a third more time. On a CPU it saves little, for XLA orders the work there by speed."""

    def problems(self) -> list[str]:
        """What is wrong with these options."""
        counts = {"fsdp": self.fsdp, "accumulate": self.accumulate}
        return [f"--{name} is {count}, expected at least 1" for name, count in counts.items() if count < 1]


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Which processes train together; a resume may change all of it."""

    coordinator: str = ""
    """HOST:PORT of the first process, the same for all, with --processes and --process; or `auto`: as SLURM, Open MPI
    or Kubernetes says. Empty: one process. All processes read and write the same --out and --store."""
    processes: int | None = None
    """How many processes train together."""
    process: int | None = None
    """Which of them this is, from 0; the first alone writes logs and prints."""
    elastic: bool = False
    """Let --resume go on with other devices, processes, --fsdp, --accumulate or --remat than it began with: the same
    numbers up to rounding, no longer bit for bit."""
    dry_run: bool = False
    """Say what a run would need (parameters, memory of a device, FLOPs of a step) and end without training."""

    def problems(self) -> list[str]:
        """What is wrong with these options."""
        named = self.coordinator not in ("", "auto")
        counted = [self.processes is not None, self.process is not None]
        if not named:
            return ["--processes and --process need --coordinator HOST:PORT"] if any(counted) else []
        if not all(counted):
            return [f"--coordinator {self.coordinator} needs --processes and --process; or let it be `auto`"]
        if ":" not in self.coordinator:
            return [f"--coordinator is {self.coordinator}, expected HOST:PORT"]
        known = 0 <= self.process < self.processes
        return [] if known else [f"--process is {self.process}, expected 0 to {self.processes - 1} (--processes - 1)"]
