"""Wall time of a decision, batch 1: with the steps that an orchestrated student takes, and with all of them."""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from eval import statistics
from eval.observations import Observations
from eval.statistics import Estimate
from train import cycle

DEEP = 1 << 10
"""More steps than any module has."""
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Wall:
    """Seconds of n decisions on the same observations, by how they were made; lanes took turns."""

    seconds: dict[str, np.ndarray]

    def saved(self, lane: str, reference: str, seed: int) -> Estimate:
        """Share of the reference's median that a lane saves."""
        ratio = statistics.ratio_interval(self.seconds[lane], self.seconds[reference], np.random.default_rng(seed))
        return Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)


def measure(policy: cycle.SageActor, seen: Observations, *, most: int, rounds: int = ROUNDS) -> Wall:
    """policy: of one row. Every observation is asked for in turn with the policy's own will and at full depth, warm and
    blocked on the result; of the rounds the fastest counts, so that a busy machine adds little."""
    lanes = {"own": policy.will, "full": dataclasses.replace(policy.will, depth=DEEP)}
    asked = observations(policy, seen, most)
    for will in lanes.values():
        policy.answer(asked[0], will)
    best = {name: np.full(len(asked), np.inf) for name in lanes}
    for turn in range(rounds):
        order = list(lanes.items())[:: 1 if turn % 2 == 0 else -1]
        for index, given in enumerate(asked):
            for name, will in order:
                started = time.perf_counter()
                policy.answer(given, will)
                best[name][index] = min(best[name][index], time.perf_counter() - started)
    return Wall(best)


def observations(policy: cycle.SageActor, seen: Observations, most: int) -> Sequence[cycle.Given]:
    """What the student is given at some of the observations, spread over the split, everything trusted as usual."""
    memory, found = cycle.Memory(policy.witness), []
    wanted = set(np.linspace(0, len(seen) - 1, min(most, len(seen))).astype(int).tolist())
    position = 0
    for batch in seen.batches(policy.words, policy.student.config.language.length):
        for row in range(len(batch.episode)):
            if position in wanted:
                one = {name: value[row : row + 1] for name, value in batch.inputs.items()}
                still = np.zeros_like(one.pop("noise")[:, 0])
                views = np.ones((1, 1, one["video"].shape[2]), bool)
                rest = {"trust": memory.modules.trust[None], "atp": np.full(1, policy.will.atp, np.float32)}
                found.append(one | {"noise": still, "frame_mask": views} | rest)
            position += 1
    return found
