"""How much memory this process has held at most."""

import pathlib
import resource

STATUS = pathlib.Path("/proc/self/status")


def peak_bytes() -> int:
    """Peak resident memory of this process since it began to run its own program.

    Not plain `ru_maxrss` where Linux tells better: a child inherits that through fork and exec, so that every process
    started by a large one would claim the parent's size.
    """
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
