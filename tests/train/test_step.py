"""The jitted step: the same numbers however many devices share the batch."""

import jax
import numpy as np
import pytest
from flax import nnx

from bridge import store
from student_jax import config as student_config
from student_jax import presets
from student_jax.student import Student
from train import config, data, loop, optim, sharding, stages, state

OPTIONS = config.Config(preset="tiny", recipe=config.Recipe(batch=8, warmup=0.0))


@pytest.fixture(scope="module")
def batches(stored):
    frames = data.Frames(store.open(stored), "train", features=("image_tokens", "vision_attention"), cache_bytes=1e9)
    return [data.training(frames, batch=8, seed=0)[step] for step in range(3)]


def run(devices: int, batches) -> tuple[state.TrainState, list[dict]]:
    stage, mesh = stages.select(OPTIONS, "arc"), sharding.make_mesh(8, devices)
    settings = presets.make("tiny", student_config.Target(width=8, grid=3))
    graph, params, frozen = state.initialise(lambda: Student(settings, rngs=nnx.Rngs(0)), stage.trains)
    optimiser, schedule = optim.make_optimiser(OPTIONS.recipe, 10), optim.make_schedule(OPTIONS.recipe, 10)
    now = sharding.put(state.create(params, frozen, optimiser), mesh)
    functions = loop.make_functions(graph, stage, optimiser, schedule, OPTIONS, mesh=mesh, like=now)
    key, logged = sharding.make_key(0, mesh), []
    for batch in batches:
        now, metrics = functions.train(now, sharding.shard_batch(batch, mesh), key)
        logged.append(jax.device_get(metrics))
    return now, logged


@pytest.fixture(scope="module")
def alone(batches):
    return run(1, batches)


def test_eight_devices_give_the_result_of_one(alone, batches):
    together, logged = run(8, batches)
    for one, eight in zip(alone[1], logged, strict=True):
        assert one.keys() == eight.keys()
        for name, value in one.items():
            np.testing.assert_allclose(eight[name], value, rtol=2e-3, atol=1e-5, err_msg=name)
    # Adam makes a good part of a step (3 x 2e-3) of a gradient that is nought up to rounding.
    for name in ("params", "ema"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(b, a, atol=5e-4), getattr(alone[0], name), getattr(together, name)
        )


def test_the_batch_is_split_and_everything_else_is_everywhere(batches):
    mesh = sharding.make_mesh(8, 4)
    batch = sharding.shard_batch(batches[0], mesh)
    assert {shard.data.shape[0] for leaf in batch.values() for shard in leaf.addressable_shards} == {2}
    assert all(len(leaf.sharding.device_set) == 4 for leaf in batch.values())


def test_the_step_counts_moves_the_parameters_and_leaves_the_statistics(alone):
    now, logged = alone
    assert int(now.step) == 3
    assert [float(row["learning_rate"]) for row in logged] == pytest.approx(
        [float(optim.make_schedule(OPTIONS.recipe, 10)(step)) for step in range(3)]
    )
    np.testing.assert_array_equal(now.frozen["vision"]["basis"], np.eye(8))
    assert float(logged[2]["loss"]) < float(logged[0]["loss"])


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(config.ConfigError, match="--host-devices is 64, but jax already runs with 8"):
        sharding.make_mesh(64, 64)


def test_a_loss_is_called_starved_unless_it_had_nothing_to_count():
    shares = {"share/tokens": 0.9, "share/fused": 0.001, "share/imitation": 0.0, "share/dead": 0.0}
    losses = {"loss/tokens": 1.0, "loss/fused": 0.2, "loss/imitation": 0.0, "loss/dead": 0.3}
    assert loop.starved(shares | losses) == ["fused", "dead"]
