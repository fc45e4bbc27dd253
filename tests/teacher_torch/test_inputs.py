"""Pixels, prompts and ids equal the official ones; bad images and mismatched observations are errors."""

import dataclasses
import pathlib

import numpy as np
import pytest
import torch

from bridge import embodiment
from bridge.observation import Observation
from teacher_torch.groot import inputs, tokenizer

METADATA = pathlib.Path(__file__).parents[1] / "golden" / "chain_metadata.json"
CASES = ("v1_224", "v2_224", "t1_900", "v1_256x320", "b2pad")


def unpack(pixels: np.ndarray) -> np.ndarray:
    """Official pixel values from their exact uint8 form."""
    return (pixels.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)


@pytest.mark.parametrize("name", CASES)
def test_ids_mask_and_state_equal_the_official_ones(name, golden_case, prepared):
    case, given = golden_case(f"tiny_{name}"), prepared(name)
    for key in ("input_ids", "attention_mask", "state", "state_mask", "embodiment_id"):
        ours = getattr(given, key).numpy()
        np.testing.assert_array_equal(ours, case[key])
        assert ours.dtype == case[key].dtype


def test_tiles_of_a_raw_image_equal_the_official_ones(golden_case, prepared):
    np.testing.assert_array_equal(prepared("v1_256x320").pixel_values, unpack(golden_case("tiny_v1_256x320")["pixels"]))


@pytest.mark.parametrize("name", ["v1_224", "v2_224", "b2pad"])
def test_one_tile_is_the_image_itself(name, golden_case, prepared):
    video = golden_case(f"tiny_{name}")["video"]
    np.testing.assert_array_equal(
        prepared(name).pixel_values, unpack(video.reshape(-1, 224, 224, 3).transpose(0, 3, 1, 2))
    )


def chain(case: dict[str, np.ndarray], state_type: type) -> tuple[embodiment.Embodiment, np.ndarray]:
    body = embodiment.load(METADATA)
    values = {key: case[f"raw/state.{key}"].astype(state_type) for key in ("single_arm", "gripper")}
    return body, embodiment.normalise(body, values)


def test_robot_chain_equals_the_official_one(golden_case):
    case = golden_case("chain")
    body, state = chain(case, np.float64)
    video = np.stack([case["raw/video.front"], case["raw/video.wrist"]], axis=2)
    text = str(case["raw/annotation.human.task_description"][0, 0])
    observation = Observation(video, state.astype(np.float32), (text,), "new_embodiment")
    given = inputs.prepare(observation, body, tokenizer.packaged(), tokens_per_tile=16)
    np.testing.assert_array_equal(given.pixel_values, unpack(case["out/eagle_pixels"]))
    np.testing.assert_array_equal(given.input_ids, case["out/eagle_input_ids"])
    np.testing.assert_array_equal(given.attention_mask, case["out/eagle_attention_mask"])
    np.testing.assert_array_equal(given.embodiment_id, case["out/embodiment_id"])
    np.testing.assert_array_equal(given.state_mask, case["out/state_mask"])
    np.testing.assert_array_equal(given.state, case["out/state"].astype(np.float32))


@pytest.mark.parametrize(
    ("height", "width", "tiles"),
    [
        *((224, 224, 1), (256, 256, 1), (100, 100, 1), (300, 300, 5), (336, 336, 5), (448, 448, 5), (180, 320, 3)),
        *((900, 900, 10), (240, 320, 13), (256, 320, 13), (480, 640, 13), (720, 1280, 13)),
    ],
)
def test_number_of_tiles(height, width, tiles):
    assert len(inputs.pixel_values(np.zeros((height, width, 3), np.uint8))) == tiles


def test_tiles_are_row_major_and_the_thumbnail_last():
    image = np.zeros((448, 448, 3), np.uint8)
    image[224:, :224] = 255
    tiles = inputs.pixel_values(image)
    assert [round(float(tile.mean()), 1) for tile in tiles] == [-1, -1, 1, -1, -0.5]


def test_one_tile_where_the_embodiment_allows_one():
    assert inputs.pixel_values(np.zeros((900, 900, 3), np.uint8), max_tiles=1).shape == (1, 3, 224, 224)


def test_published_prompt_lengths():
    """Two 900-pixel images are 5,120 image tokens; the instruction gives the rest of the published lengths."""
    coder = tokenizer.packaged()
    for text, length in (("Solve the pattern transformation task", 5159), ("Solve ARC task 007bbfb7", 5164)):
        assert len(coder.encode(inputs.prompt(text, [10, 10]))) == length


def test_bracketed_style_is_how_an_array_prints():
    body = embodiment.arc()
    body = dataclasses.replace(body, transform=dataclasses.replace(body.transform, instruction_style="bracketed"))
    coder = tokenizer.packaged()
    for text in ("go", "don't", 'say "go"'):
        given = inputs.prepare(observe(text=text), body, coder, tokens_per_tile=1)
        assert str(np.array([text])) in coder.decode(given.input_ids[0].tolist())


def observe(text: str = "go", tag: str = "arc", views: int = 1, state: int = 16) -> Observation:
    video = np.zeros((1, 1, views, 8, 8, 3), np.uint8)
    return Observation(video, np.zeros((1, 1, state), np.float32), (text,), tag)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (observe(tag="other"), "'other'.*'arc'.*embodiment.load"),
        (observe(views=2), "1 views"),
        (observe(state=5), "16 state values.*5"),
    ],
)
def test_observation_that_does_not_fit_the_embodiment(observation, message):
    with pytest.raises(inputs.InputError, match=message):
        inputs.prepare(observation, embodiment.arc(), tokenizer.packaged())


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8), torch.zeros(3, 8)])
def test_image_of_another_kind(image):
    with pytest.raises(inputs.InputError, match=r"uint8 \[height, width, 3\]"):
        inputs.pixel_values(image)


def test_an_image_without_pixels_or_tiles_is_refused():
    for image, tiles in ((np.zeros((0, 8, 3), np.uint8), 1), (np.zeros((8, 8, 3), np.uint8), 0)):
        with pytest.raises(inputs.InputError, match="with pixels and max_tiles"):
            inputs.pixel_values(image, max_tiles=tiles)
