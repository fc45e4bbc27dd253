"""Wall time of a decision, batch 1: with the steps that an orchestrated student takes, and with all of them."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval import statistics
from eval.observations import Observations
from eval.statistics import Estimate
from student_jax import irp
from student_jax.sage import orchestrator
from student_jax.student import Student
from train import actor, cycle

DEEP = 1 << 10
"""More steps than any module has."""
ROUNDS = 3
SEEN = tuple(field.name for field in dataclasses.fields(actor.Seen))
"""What a student without an H-module is given."""


@dataclasses.dataclass(frozen=True)
class Wall:
    """Seconds of n decisions on the same observations, by how they were made; lanes took turns."""

    seconds: dict[str, np.ndarray]
    step: dict[str, float] = dataclasses.field(default_factory=dict)
    """Milliseconds of a step of each module."""

    def saved(self, lane: str, reference: str, seed: int) -> Estimate:
        """Share of the reference's median that a lane saves."""
        ratio = statistics.ratio_interval(self.seconds[lane], self.seconds[reference], np.random.default_rng(seed))
        return Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)


def measure(
    policy: cycle.SageActor,
    seen: Observations,
    *,
    most: int,
    rounds: int = ROUNDS,
    before: actor.StudentActor | None = None,
) -> Wall:
    """policy, before: of one row. Every observation is asked for in turn with the policy's own will, at full depth and
    of the student before it, warm and blocked on the result; of the rounds the fastest counts, so that a busy machine
    adds little."""
    deep = dataclasses.replace(policy.will, depth=DEEP)
    lanes: dict[str, Callable] = {"own": policy.answer, "full": lambda given: policy.answer(given, deep)}
    if before is not None:
        lanes["before"] = lambda given: before.chunks(actor.Seen(**{name: given[name] for name in SEEN}))
    asked = observations(policy, seen, most)
    for lane in lanes.values():
        lane(asked[0])
    best = {name: np.full(len(asked), np.inf) for name in lanes}
    for turn in range(rounds):
        order = list(lanes.items())[:: 1 if turn % 2 == 0 else -1]
        for index, given in enumerate(asked):
            for name, lane in order:
                started = time.perf_counter()
                lane(given)
                best[name][index] = min(best[name][index], time.perf_counter() - started)
    return Wall(best, steps(policy.student.folded(), asked[0]))


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


def steps(student: Student, given: cycle.Given, *, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of a refinement step of each module, batch 1: the median of what all its steps take beyond none,
    per step."""
    graph, state = nnx.split(student)
    state = nnx.to_pure_dict(state)
    program, found = _counted(graph), {}
    for index, (name, module) in enumerate(student.modules.items()):
        most = module.description.max_steps
        taken = {count: [] for count in (0, most)}
        for turn in range(rounds + 1):
            for count, seconds in taken.items():
                counts = np.zeros(len(student.modules), np.int32)
                counts[index] = count
                started = time.perf_counter()
                jax.block_until_ready(program(state, given, counts))
                if turn:
                    seconds.append(time.perf_counter() - started)
        beyond = np.median(np.subtract(taken[most], taken[0]))
        found[name] = float(1000 * max(beyond, 0.0) / most)
    return found


def _counted(graph: nnx.GraphDef) -> Callable:
    """A decision in which every module takes so many steps (int32 [m]), and no H-module speaks."""

    @jax.jit
    def run(state: dict, given: dict[str, jax.Array], counts: jax.Array) -> jax.Array:
        student, inputs = nnx.merge(graph, state), dict(given)
        rows, key = inputs.pop("atp").shape[0], jax.random.key(0)
        inputs.pop("trust")
        inputs = irp.Inputs(**inputs)
        for index, (name, module) in enumerate(student.modules.items()):
            last, _ = irp.refine(module, inputs, key, jnp.full(rows, counts[index]), irp.NEVER)
            inputs = orchestrator.tell(student, inputs, name, last, None)
        return student.control.output(last)["actions"]

    return run
