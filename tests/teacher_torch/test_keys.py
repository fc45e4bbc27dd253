"""The official key tree, every one of its tensors accounted for, on the meta device."""

import json
import pathlib

import pytest
import torch

from teacher_torch.groot import config, keys, model

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
OFFICIAL = {size: json.loads((GOLDEN / f"keys_{size}.json").read_text()) for size in ("tiny", "full")}


@pytest.fixture(scope="module")
def published() -> model.Groot:
    with torch.device("meta"):
        return model.Groot(config.GrootConfig())


def test_all_899_tensors_are_mapped_or_known_to_be_unused(published):
    ours = {name: list(tensor.shape) for name, tensor in published.state_dict().items()}
    found, unknown, doubled = keys.sources(OFFICIAL["full"], with_head=True)
    unused = [key for key in OFFICIAL["full"] if keys.unused(key)]
    assert len(OFFICIAL["full"]) == 899
    assert not unknown
    assert not doubled
    assert {name: OFFICIAL["full"][key] for name, key in found.items()} == ours
    assert len(found) + len(unused) == 899
    assert sorted({key.removeprefix("backbone.eagle_model.").split(".")[0] for key in unused}) == [
        "language_model",
        "vision_model",
    ]
    assert len(unused) == 1 + 11


def test_published_size(published):
    assert sum(p.numel() for p in published.parameters()) == 2_398_284_528
    features = sum(p.numel() for name, p in published.named_parameters() if not name.startswith("head."))
    assert features == 1_329_478_384


def test_names_go_back_to_the_official_ones(published):
    assert {keys.official(name) for name in published.state_dict()} == {
        k for k in OFFICIAL["full"] if not keys.unused(k)
    }


def test_flat_and_prefixed_spellings_are_the_same_tensor():
    nested = "backbone.eagle_model.vision_model.vision_model.post_layernorm.weight"
    assert keys.canonical("_groot_model." + nested) == nested
    assert keys.canonical(nested.replace("vision_model.vision_model", "vision_model")) == nested


def test_unknown_and_doubled_keys_are_reported():
    nested = "backbone.eagle_model.vision_model.vision_model.post_layernorm.weight"
    flat = nested.replace("vision_model.vision_model", "vision_model")
    _, unknown, doubled = keys.sources([nested, flat, "optimizer.state"], with_head=True)
    assert (unknown, doubled) == (["optimizer.state"], [flat])


def test_foreign_parameter_has_no_official_name():
    with pytest.raises(ValueError, match="not a parameter of Groot"):
        keys.official("decoder.weight")
