"""FLOPs of the building blocks, and the table that turns them into ATP: 1 ATP = 10 MFLOP."""

import dataclasses
import math

FLOP_PER_ATP = 10e6
GRAIN = 2.0**-6
"""ATP in which steps are charged: float32 adds and subtracts such prices exactly, up to 2^18 ATP."""


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations of one plugin per sample; a multiply-add is two, element-wise work is left out."""

    init: float
    """The first valid state: always paid, whatever the budget."""
    step: float
    """One refinement, its energy included: what a budget buys."""
    output: float
    """Reading the features out of the returned state: always paid."""

    @property
    def step_atp(self) -> float:
        """The price of a step: rounded up to a GRAIN."""
        return math.ceil(self.step / FLOP_PER_ATP / GRAIN) * GRAIN

    @property
    def base_atp(self) -> float:
        return (self.init + self.output) / FLOP_PER_ATP


def linear(rows: int, inputs: int, outputs: int) -> float:
    """FLOPs of a matrix product [rows, inputs] @ [inputs, outputs]."""
    return 2.0 * rows * inputs * outputs


def block(tokens: int, width: int, *, mlp: int) -> float:
    """FLOPs of one transformer block over one sequence: four projections, attention, a two-matrix MLP `mlp` wide."""
    attention = 2 * linear(tokens, width, tokens)
    return linear(tokens, width, 4 * width) + attention + 2 * linear(tokens, width, mlp)
