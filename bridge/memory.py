"""How much memory this process holds, and has held at most."""

import pathlib
import resource

STATUS = pathlib.Path("/proc/self/status")


def peak_bytes() -> int:
    """Peak resident memory of this process since it began to run its own program.

    Not plain `ru_maxrss` where Linux tells better: a child inherits that through fork and exec, so that every process
    started by a large one would claim the parent's size.
    """
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    """Resident memory of this process now; its peak where the system does not tell."""
    return _status("VmRSS:") or peak_bytes()


def _status(field: str) -> int | None:
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)
