"""Where a number comes from: device, commit, versions."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess

import jax

from eval import export, report, runs

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tensorstore", "torch", "transformers")


def device() -> str:
    """The accelerator's name, or the CPU's with the cores this process may use."""
    found = jax.devices()[0]
    if found.platform != "cpu":
        return f"{found.platform}: {found.device_kind}"
    return f"cpu: {_cpu()}, {len(os.sched_getaffinity(0))} cores"


def commit() -> str:
    """The commit of this code, "-dirty" when the working tree differs, "unknown" outside a repository."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def context(run: runs.Run, teacher: str, environment: str, command: str) -> report.Context:
    """What all rows about a run share. teacher, environment: their provenance."""
    size = export.parameters(run.student)
    return report.Context(teacher, environment, run.preset, size, device(), commit(), command)


def versions() -> dict[str, str]:
    """Of Python and the packages that decide numbers; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
