"""What one step of each module takes on this machine, beside what it costs in ATP."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from eval import export, origin, parity, policy
from eval.artifact import Kit
from student_jax import irp
from student_jax.student import Student

CALLS = 15


def measure(student: Student, kit: Kit, loaded: policy.Policy) -> dict[str, Any]:
    """{device, ms_base, ms_per_step {module}, calls}: medians of warm calls for one observation. ms_base: the artifact
    without any step, whatever its host does included; ms_per_step: the module's step alone, compiled."""
    given = parity.asked(loaded, kit, batch=1, shares=(0.0,), seed=0)[0]
    base = _median(lambda: loaded.run(given))
    made = export.prepare(student, kit, loaded.meta["dtype"])
    steps = {name: _step(made.student, name, export.inputs(given, kit.body)) for name in loaded.meta["modules"]}
    return {"device": origin.device(), "ms_base": base, "ms_per_step": steps, "calls": CALLS}


def _step(student: Student, name: str, inputs: irp.Inputs) -> float:
    key, (graph, weights) = jax.random.key(0), nnx.split(student)
    weights = nnx.to_pure_dict(weights)

    @jax.jit
    def ready(weights, inputs):
        whole = nnx.merge(graph, weights)
        prepared = whole.prepared(inputs, key, name=name)
        return prepared, irp.start(whole.modules[name], prepared, key)

    @jax.jit
    def step(weights, state, inputs):
        return irp.advance(nnx.merge(graph, weights).modules[name], state, inputs)

    inputs, state = ready(weights, inputs)
    return _median(lambda: jax.block_until_ready(step(weights, state, inputs)))


def _median(call: Callable[[], Any]) -> float:
    """Milliseconds of a warm call."""
    call()
    seconds = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))
