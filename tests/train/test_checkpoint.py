"""Checkpoints: exact, atomic under kill -9, and strict about what they are loaded into."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import checkpoint

TREE = {"params": {"blocks": {0: {"kernel": jnp.arange(6.0).reshape(2, 3)}}}, "step": jnp.int32(3)}
LIKE = jax.eval_shape(lambda: TREE)


@pytest.fixture
def slot(tmp_path):
    return checkpoint.Slot(tmp_path / "last")


def saved(slot, *steps, tree=TREE):
    for step in steps:
        slot.save(step, tree, {"step": step, "best": 0.1 + 0.2})
    slot.wait()
    return slot


def test_a_checkpoint_comes_back_exactly_with_its_progress(slot):
    tree, progress = saved(slot, 3).load(LIKE)
    jax.tree.map(np.testing.assert_array_equal, tree, TREE)
    assert progress == {"step": 3, "best": 0.1 + 0.2}


def test_only_the_newest_is_kept(slot):
    saved(slot, 8, 9, 10)
    assert os.listdir(slot.folder) == ["10"]
    assert slot.newest() == 10


def test_part_of_a_checkpoint_can_be_loaded(slot):
    tree, _ = saved(slot, 1).load({"params": LIKE["params"]})
    np.testing.assert_array_equal(tree["params"]["blocks"][0]["kernel"], TREE["params"]["blocks"][0]["kernel"])


def test_the_arrays_may_be_donated_while_they_are_written(slot):
    tree = {"w": jnp.zeros(1 << 20)}
    slot.save(1, tree, {})
    jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)(tree)
    slot.wait()
    loaded, _ = slot.load({"w": jax.ShapeDtypeStruct((1 << 20,), jnp.float32)})
    assert jnp.abs(loaded["w"]).max() == 0


def test_a_mismatch_names_every_leaf(slot):
    wrong = {
        "params": {
            "blocks": {
                0: {
                    "kernel": jax.ShapeDtypeStruct((2, 4), jnp.float32),
                    "bias": jax.ShapeDtypeStruct((3,), jnp.float32),
                }
            }
        },
        "step": jax.ShapeDtypeStruct((), jnp.float32),
    }
    with pytest.raises(checkpoint.CheckpointError) as raised:
        saved(slot, 1).load(wrong)
    assert "params/blocks/0/kernel: saved float32[2, 3], expected float32[2, 4]" in str(raised.value)
    assert "params/blocks/0/bias: not in the checkpoint" in str(raised.value)
    assert "step: saved int32[], expected float32[]" in str(raised.value)


def test_an_empty_folder_says_what_to_run(slot):
    with pytest.raises(checkpoint.CheckpointError, match=r"python -m train\.main"):
        slot.load(LIKE)


def test_leftovers_of_a_killed_save_are_ignored_and_removed(slot):
    saved(slot, 1)
    (slot.folder / "2.orbax-checkpoint-tmp").mkdir()
    (slot.folder / ".trash-0").mkdir()
    assert slot.newest() == 1
    saved(slot, 2)
    assert os.listdir(slot.folder) == ["2"]


SAVER = """
import itertools, pathlib, sys
import jax.numpy as jnp
from train import checkpoint
slot = checkpoint.Slot(pathlib.Path(sys.argv[1]))
for step in itertools.count(1):
    slot.save(step, {"w": jnp.full((64, 1024), 1.0 * step), "v": jnp.full((8,), 1.0 * step)}, {"step": step})
    slot.wait()
    print(step, flush=True)
"""


def test_killed_at_any_moment_the_newest_complete_checkpoint_loads(slot):
    like = {"w": jax.ShapeDtypeStruct((64, 1024), jnp.float32), "v": jax.ShapeDtypeStruct((8,), jnp.float32)}
    rng = np.random.default_rng(0)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", SAVER, str(slot.folder)], stdout=subprocess.PIPE, text=True)
        promised = int(child.stdout.readline())
        time.sleep(rng.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().split()
        child.stdout.close()
        child.wait()
        tree, progress = slot.load(like)
        assert progress["step"] >= int(lines[-1] if lines else promised)
        assert jnp.unique(jnp.concatenate([tree["w"].ravel(), tree["v"]])).tolist() == [progress["step"]]
