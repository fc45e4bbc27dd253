"""The full-size model fits into the memory that the project promises (slow: writes 5.5 GB, minutes of compute)."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "golden" / "full_size.py"


@pytest.mark.soak
def test_full_size_model_runs_within_its_memory(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "--weights", tmp_path], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
