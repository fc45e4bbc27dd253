"""The teacher's timing process: what it computes is what the model computes, and it answers line by line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bridge import arc, embodiment
from teacher_torch import full_size, timing
from teacher_torch.groot import inputs, tokenizer


@pytest.fixture(scope="module")
def observation():
    task = arc.splits(1)["validation"][0]
    return arc.observation(arc.records(task)[-1], pixels=10)


@pytest.fixture(scope="module")
def clock(golden_model, observation):
    return timing.Clock(golden_model, observation, tokenizer.packaged(), embodiment.arc(1))


@pytest.fixture
def stored(observation, tmp_path):
    path = tmp_path / "observation.npz"
    words = np.array(observation.instruction)
    np.savez(path, video=observation.video, state=observation.state, instruction=words, embodiment=np.array("arc"))
    return path


def test_an_observation_survives_the_file(observation, stored):
    read = timing.observe(stored)
    assert np.array_equal(read.video, observation.video)
    assert (read.instruction, read.embodiment) == (observation.instruction, observation.embodiment)


def test_image_tokens_and_attention_are_the_models_own(clock, golden_model, observation):
    pixels = inputs.pixel_values(observation.video[0, 0, 0], tile=golden_model.config.tile, max_tiles=1)
    with torch.inference_mode():
        want = golden_model.vision(pixels, attention=True)
    for got, tensor in zip(clock.call("image_tokens")(), want, strict=True):
        assert np.array_equal(got, tensor.numpy())


def test_features_are_the_models_own(clock, golden_model, observation):
    config = golden_model.config
    ready = inputs.prepare(
        observation, embodiment.arc(1), tokenizer.packaged(), tile=config.tile, tokens_per_tile=config.tokens_per_tile
    )
    with torch.inference_mode():
        want = golden_model.features(ready.input_ids, ready.attention_mask, ready.pixel_values)
    assert clock.call("backbone_features")()[0] == pytest.approx(want.numpy(), abs=1e-6)


def test_cost_counts_the_parts_behind_an_output(clock, golden_model):
    vision, whole = (clock.cost(output) for output in timing.OUTPUTS[:2])
    parts = [golden_model.tower, golden_model.connector]
    assert vision["parameters"] == sum(p.numel() for part in parts for p in part.parameters())
    assert vision["bytes"] == 4 * vision["parameters"]
    assert whole["flops"] > vision["flops"]


def test_flops_of_the_tower_equal_the_products_counted_by_hand(clock, golden_model):
    size, tokens = golden_model.config.vision, golden_model.config.tokens_per_tile
    width = size.hidden_size
    layer = 2 * tokens * width * (4 * width + 2 * size.intermediate_size) + 4 * tokens * tokens * width
    last = (
        2 * tokens * width * 2 * width + 2 * tokens * tokens * width
    )  # the attention map, computed beside the fused one
    patches = 2 * tokens * width * 3 * size.patch_size**2
    connector = 2 * tokens * width * golden_model.config.width
    want = size.num_hidden_layers * layer + last + patches + connector
    assert clock.cost("image_tokens")["flops"] == pytest.approx(want, rel=0.01)


def test_answers(clock):
    ran = timing.answer(clock, {"do": "run", "output": "image_tokens", "warm": 1, "repeats": 3})
    assert ran["event"] == "result"
    assert len(ran["seconds"]) == 3
    assert timing.answer(clock, {"do": "memory"})["peak_bytes"] > 50e6


@pytest.mark.parametrize("request_", [{"do": "dance"}, {"do": "run", "output": "actions"}, {}])
def test_an_unknown_request_is_answered_not_fatal(clock, request_):
    answer = timing.answer(clock, request_)
    assert answer["event"] == "error"
    assert "image_tokens" in answer["message"]


def test_the_real_process(golden_folder, stored):
    command = [sys.executable, "-m", "teacher_torch.timing", "--teacher", str(golden_folder), "--dtype", "float32"]
    command += ["--observation", str(stored), "--tokenizer", "packaged", "--max-tiles", "1"]
    asked = '{"do": "run", "output": "image_tokens", "warm": 0, "repeats": 2}\n{"do": "memory"}\n'
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    ready, ran, memory = (json.loads(line) for line in done.stdout.splitlines())
    assert (ready["event"], ran["event"], memory["event"]) == ("ready", "result", "memory")
    assert len(ran["seconds"]) == 2
    assert ready["costs"]["image_tokens"]["parameters"] > 0
    assert len(ready["digest"]) == 64


@pytest.fixture(scope="module")
def acting(golden_model, observation):
    body = embodiment.arc(1)
    return timing.Clock(golden_model, observation, tokenizer.packaged(), body, physical=True)


def test_actions_are_the_whole_policys_in_physical_units(acting, golden_model):
    (sizes,) = acting.call("actions")()
    head = golden_model.config.head
    assert sizes.shape == (1, head.horizon, 2)
    assert np.isfinite(sizes).all()
    assert acting.cost("actions")["flops"] > acting.cost("backbone_features")["flops"]


def test_a_batch_is_so_many_observations(acting):
    (sizes,) = acting.call("actions", batch=3)()
    assert len(sizes) == 3
    ran = timing.answer(
        acting, {"do": "run", "output": "actions", "warm": 0, "repeats": 1, "batch": 2}, outputs=("actions",)
    )
    assert ran["event"] == "result"


def test_a_mode_that_was_not_compiled_is_refused(acting):
    asked = {"do": "run", "output": "actions", "warm": 0, "repeats": 1, "mode": "compiled"}
    assert timing.answer(acting, asked, outputs=("actions",))["event"] == "error"


def test_weights_drawn_in_memory_keep_activations_in_range(golden_model, observation):
    model = full_size.build(golden_model.config, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    clock = timing.Clock(model, observation, tokenizer.packaged(), embodiment.arc(1))
    (features,), (actions,) = clock.call("backbone_features")(), clock.call("actions")()
    assert 0.1 < features.std() < 10
    assert 1e-3 < actions.std() < 1e3
    again = full_size.build(golden_model.config, dtype=torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
