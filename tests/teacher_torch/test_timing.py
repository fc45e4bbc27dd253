"""The teacher's timing process: what it computes is what the model computes, and it answers line by line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bridge import arc, embodiment
from teacher_torch import timing
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
