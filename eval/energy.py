"""Joules spent so far by the CPU packages (RAPL) or a GPU (nvidia-smi), where this machine tells."""

import pathlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable

POWERCAP = pathlib.Path("/sys/class/powercap")
EVERY_MS = 50  # between samples of a GPU's power


class NoEnergy(Exception):
    """This machine does not tell; the message is the reason shown in the report."""


class Packages:
    """All CPU packages together. Reading needs the right to: many kernels keep it for root."""

    def __init__(self, home: pathlib.Path = POWERCAP):
        zones = sorted(path for path in home.glob("intel-rapl:*") if path.name.count(":") == 1)
        if not zones:
            raise NoEnergy(f"no RAPL counters in {home}: this CPU has none, or a virtual machine hides them")
        try:
            self._zones = [(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())) for zone in zones]
            self._last = [int(path.read_text()) for path, _ in self._zones]
        except OSError as error:
            raise NoEnergy(f"RAPL counters cannot be read ({error.strerror}): run as root, or allow it") from error
        self._total = 0.0

    def joules(self) -> float:
        """Since this was made. Ask more often than the counters turn over, which takes minutes."""
        now = [int(path.read_text()) for path, _ in self._zones]
        for new, old, (_, span) in zip(now, self._last, self._zones, strict=True):
            self._total += (new - old) % span / 1e6
        self._last = now
        return self._total

    def close(self) -> None:
        """Nothing is held."""


class Graphics:
    """The first GPU: its power, sampled and summed over time."""

    def __init__(self):
        if shutil.which("nvidia-smi") is None:
            raise NoEnergy("nvidia-smi is not here, and nothing else is asked for a GPU's power")
        command = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "--id=0"]
        self._process = subprocess.Popen(
            [*command, f"--loop-ms={EVERY_MS}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._total, self._failed = 0.0, False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        last = time.perf_counter()
        for line in self._process.stdout:
            now = time.perf_counter()
            try:
                self._total += float(line) * (now - last)
            except ValueError:
                self._failed = True
            last = now

    def joules(self) -> float | None:
        """Since this was made; None where the GPU does not tell its power."""
        return None if self._failed else self._total

    def close(self) -> None:
        """End the sampling."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        self._process.stdout.close()


def meter(device: str, *, home: pathlib.Path = POWERCAP) -> Packages | Graphics:
    """Of the "cpu" or a "cuda" device. Raises NoEnergy with the reason where there is none."""
    return Graphics() if device == "cuda" else Packages(home)


def spent(source: Packages | Graphics | None, work: Callable[[], None]) -> float | None:
    """Joules over `work`, everything else that the machine did meanwhile included; None where nobody tells."""
    before = source.joules() if source else None
    work()
    after = source.joules() if source else None
    return None if before is None or after is None else after - before
