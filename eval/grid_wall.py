"""Wall time of an answer, beside what its matrix products alone would take at the rate measured in the same run."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from eval import matrix_rate, products, report, statistics

BAR = 2.0
"""Of p50 over what the products alone would take."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds [n] of one call on `batch` rows, its FLOPs, and the rate of the machine at the product that dominates."""

    batch: int
    seconds: np.ndarray
    flops: float
    rate: float
    shape: str

    def rows(self, name: str, context: report.Context, *, seed: int, note: str) -> list[report.Row]:
        """p50 with its interval, and over the hardware. name: as in row ids, `families.grid`."""
        rng = np.random.default_rng(seed)
        p50 = statistics.median_interval(1000 * self.seconds, rng)
        ideal = 1000 * self.flops / self.rate
        span = {"n": len(self.seconds), "ci_low": p50.low, "ci_high": p50.high, "better": "lower"}
        over = {"n": len(self.seconds), "ci_low": p50.low / ideal, "ci_high": p50.high / ideal, "better": "lower"}
        how = f"{self.flops / 1e6:.0f} MFLOP at {self.rate / 1e9:.0f} GFLOP/s, measured at {self.shape}"
        return [
            report.Row(f"{name}_p50.test", p50.value, "ms", context, note=note, **span),
            report.Row(f"{name}_over_hardware.test", p50.value / ideal, "x", context, bar=BAR, note=how, **over),
        ]


def measure(program: Callable, state: dict, video: np.ndarray, *, rounds: int = 50) -> Timed:
    """program(state, video) is called warm and blocked on; `rounds` times."""
    found = products.products(jax.make_jaxpr(program)(state, video))
    most = products.dominant(found)
    shape = {name: getattr(most, name) for name in ("batch", "m", "k", "n", "dtype")}
    jax.block_until_ready(program(state, video))
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(program(state, video))
        seconds.append(time.perf_counter() - started)
    rate = matrix_rate.measure(**shape)
    text = "{batch} x [{m}, {k}] x [{k}, {n}] {dtype}".format(**shape)
    return Timed(len(video), np.array(seconds), sum(one.flops for one in found), rate, text)
