"""A step cut over devices and into parts: the same numbers, less memory."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from bridge import store
from student_jax import config as student_config
from student_jax import presets
from student_jax.student import Student
from train import config, data, footprint, loop, optim, sharding, stages, state
from train.scale import Scale

OPTIONS = config.Config(preset="tiny", recipe=config.Recipe(batch=16, warmup=0.0))
STAGE = stages.select(OPTIONS, "arc")


@pytest.fixture(scope="module")
def batches(stored):
    frames = data.Frames(store.open(stored), "train", features=("image_tokens", "vision_attention"), cache_bytes=1e9)
    found = [data.training(frames, batch=16, seed=0)[step] for step in range(2)]
    found[1]["valid"] = np.arange(16) % 5 != 0  # parts of this batch count differently
    return found


@dataclasses.dataclass(frozen=True)
class Ran:
    """A few steps: the state, what was logged, the functions and the arguments of a step."""

    now: state.TrainState
    logged: list[dict]
    functions: loop.Functions
    given: footprint.Arguments
    mesh: jax.sharding.Mesh
    grew: int
    """Bytes by which the process grew at most during the steps."""


def run(batches, devices: int, **scale) -> Ran:
    size, options = len(batches[0]["valid"]), dataclasses.replace(OPTIONS, scale=Scale(**scale))
    mesh = sharding.make_mesh(size, devices, fsdp=options.scale.fsdp, accumulate=options.scale.accumulate)
    settings = presets.make("tiny", student_config.Target(width=8, grid=3))
    graph, params, frozen = state.initialise(lambda: Student(settings, rngs=nnx.Rngs(0)), STAGE.trains)
    optimiser, schedule = optim.make_optimiser(options.recipe, 10), optim.make_schedule(options.recipe, 10)
    now = state.create(params, frozen, optimiser)
    functions = loop.make_functions(graph, STAGE, optimiser, schedule, options, mesh=mesh, like=now)
    given = footprint.arguments(now, batches[0], size, mesh)
    now, key, logged = sharding.put(now, mesh), sharding.make_key(0, mesh), []
    functions.train.compiled(*given)
    before = resident("VmRSS", reset=True)
    for batch in batches:
        on_device = sharding.shard_batch(batch, mesh)
        with jax.transfer_guard("disallow"):
            now, values = functions.train(now, on_device, key)
        logged.append(jax.device_get(values))
    return Ran(now, logged, functions, given, mesh, resident("VmHWM") - before)


def resident(kind: str, *, reset: bool = False) -> int:
    """Bytes that this process holds, or (VmHWM) held at most since the last reset."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(kind)).split()[1])


@pytest.fixture(scope="module")
def alone(batches):
    return run(batches, 1)


CUTS = {
    "fully sharded": (8, {"fsdp": 8}),
    "mixed": (8, {"fsdp": 2}),
    "in parts": (1, {"accumulate": 4}),
    "recomputed": (1, {"remat": True}),
    "everything": (4, {"fsdp": 2, "accumulate": 2, "remat": True}),
}


@pytest.fixture(scope="module", params=CUTS)
def cut(request, batches):
    devices, scale = CUTS[request.param]
    return run(batches, devices, **scale)


def test_losses_gradients_and_parameters_are_those_of_one_device(alone, cut):
    for one, many in zip(alone.logged, cut.logged, strict=True):
        assert one.keys() == many.keys()
        for name, value in one.items():
            np.testing.assert_allclose(many[name], value, rtol=2e-3, atol=1e-5, err_msg=name)
    for name in ("params", "ema", "opt_state"):
        ours, theirs = getattr(cut.now, name), getattr(alone.now, name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-3), ours, theirs)


def test_each_device_holds_its_share_of_the_state():
    mesh = sharding.make_mesh(16, 8, fsdp=8)
    tree = {"kernel": np.zeros((24, 64), np.float32), "odd": np.zeros((51, 63)), "bias": np.zeros(64, np.float32)}
    held = sharding.put(tree, mesh)
    assert {name: leaf.addressable_shards[3].data.shape for name, leaf in held.items()} == {
        "kernel": (24, 8),
        "odd": (51, 63),
        "bias": (64,),
    }


def test_a_footprint_says_what_the_device_holds(alone, cut):
    needs = footprint.predict(cut.functions.train, cut.given, cut.mesh)
    held = {name: footprint.held(getattr(cut.now, name)) for name in ("params", "ema", "opt_state", "frozen")}
    assert needs.state == held
    assert needs.parameters == sum(leaf.size for leaf in jax.tree.leaves(cut.now.params))
    assert needs.limit is None
    assert sum(held.values()) < needs.peak


def test_parts_need_less_and_recomputing_is_compiled(batches, alone):
    def working(ran: Ran) -> int:
        return footprint.predict(ran.functions.train, ran.given, ran.mesh).working

    assert working(run(batches[:1], 1, accumulate=4)) < 0.6 * working(alone)
    again = run(batches[:1], 1, remat=True)
    barrier = [
        "optimization_barrier" in ran.functions.train.jitted.lower(*ran.given).as_text() for ran in (alone, again)
    ]
    assert barrier == [False, True]


def test_the_prediction_is_what_the_process_grew_by(stored):
    frames = data.Frames(store.open(stored), "train", features=("image_tokens", "vision_attention"), cache_bytes=1e9)
    ran = run([data.training(frames, batch=192, seed=0)[0]], 1)
    needs = footprint.predict(ran.functions.train, ran.given, ran.mesh)
    assert 0.5 < ran.grew / (needs.working + needs.batch) < 1.5


def test_a_device_that_is_too_small_is_refused_with_what_to_do(alone):
    needs = footprint.predict(alone.functions.train, alone.given, alone.mesh)
    dataclasses.replace(needs, limit=needs.peak).check()
    with pytest.raises(config.ConfigError, match=r"--accumulate.*--remat.*--fsdp"):
        dataclasses.replace(needs, limit=needs.peak - 1).check()


def test_rows_of_the_whole_batch_are_read_by_a_process_alone():
    assert sharding.rows(sharding.make_mesh(16, 8, fsdp=2), 16) == slice(0, 16)


@pytest.mark.parametrize(
    ("scale", "said"),
    [({"fsdp": 3}, "--fsdp 3 does not divide 8 devices"), ({"accumulate": 4}, "over 8 devices in 4 parts")],
)
def test_what_does_not_divide_is_refused(scale, said):
    with pytest.raises(config.ConfigError, match=said):
        sharding.make_mesh(16, 8, **scale)


@pytest.mark.parametrize("scale", [{"fsdp": 0}, {"accumulate": 0}])
def test_a_count_of_nothing_is_refused(scale):
    with pytest.raises(config.ConfigError, match="expected at least 1"):
        config.Config(scale=Scale(**scale))
