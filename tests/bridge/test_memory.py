"""Peak memory is a process's own."""

import subprocess
import sys

import numpy as np

from bridge import memory


def test_a_child_does_not_inherit_its_parents_peak():
    held = np.ones(300 << 20, np.uint8)
    command = [sys.executable, "-c", "from bridge import memory; print(memory.peak_bytes())"]
    child = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert memory.peak_bytes() > held.nbytes > child > 1 << 20
