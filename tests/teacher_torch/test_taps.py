"""Taps by name: official values where there are some, definitions checked from their parts otherwise."""

import dataclasses

import pytest
import torch

from teacher_torch import taps
from teacher_torch.groot import backbone, checkpoint
from teacher_torch.groot.inputs import ModelInputs


@pytest.fixture(scope="module")
def given(prepared) -> ModelInputs:
    return prepared("v1_224")


@pytest.fixture(scope="module")
def taken(golden_model, given) -> dict[str, torch.Tensor]:
    return taps.collect(golden_model, given, taps.NAMES, noise=taps.draw_noise(golden_model, [0], 3), steps=2)


def test_every_name_of_the_design_is_given(taken):
    assert set(taken) == set(taps.NAMES)
    shapes = {name: list(value.shape) for name, value in taken.items()}
    assert shapes == {
        "input_ids": [1, 47],
        "attention_mask": [1, 47],
        "image_mask": [1, 47],
        "saliency": [1, 47],
        "image_tokens": [1, 16, 64],
        "vision_attention": [1, 16],
        "layer_convergence": [1, 3],
        "confidence": [1],
        "backbone_features": [1, 47, 64],
        "adapted_features": [1, 47, 64],
        "noise": [1, 3, 16, 32],
        "actions": [1, 3, 16, 32],
        "path": [1, 3, 3, 16, 32],
        "velocity": [1, 3, 2, 16, 32],
    }


def test_official_values(golden_model, golden_case, given):
    case = golden_case("tiny_v1_224")
    names = ["image_tokens", "backbone_features", "adapted_features", "actions", "velocity"]
    taken = taps.collect(golden_model, given, names, noise=torch.tensor(case["noise"])[:, None])
    case["actions"] = case["action_pred"][:, None]
    case["velocity"] = case["velocity_tokens"][None, None, :, 0, -16:]
    for name in names:
        assert torch.allclose(taken[name], torch.tensor(case[name]), rtol=0, atol=1e-5)


def test_masks(taken, given):
    assert taken["image_mask"].sum() == 16
    assert taken["attention_mask"].all()


def test_saliency_is_a_distribution_over_image_tokens(taken):
    assert torch.allclose(taken["saliency"].sum(-1), torch.ones(1))
    assert (taken["saliency"][~taken["image_mask"]] == 0).all()
    assert taken["saliency"][taken["image_mask"]].std() > 0


def test_saliency_rows_are_the_attention_the_block_computes(golden_model):
    attention = golden_model.head.model.transformer_blocks[0].attn1
    x, context = torch.randn(2, 5, 96), torch.randn(2, 7, 64)
    key, value = attention.keys_values(context)
    rows = attention.rows(x, key)
    with torch.inference_mode():
        outcome = attention.to_out[0]((rows @ value).transpose(1, 2).flatten(2))
        assert torch.allclose(attention(x, (key, value)), outcome, atol=1e-5)


def test_layer_convergence_ends_at_one(taken):
    assert torch.allclose(taken["layer_convergence"][:, -1], torch.ones(1))
    assert (taken["layer_convergence"][:, :-1] < 0.999).all()


def test_convergence_ignores_padding():
    outputs = [torch.randn(1, 4, 8) for _ in range(2)]
    mask = torch.tensor([[0, 0, 1, 1]])
    whole = taps.convergence([o[:, 2:] for o in outputs], mask[:, 2:])
    assert torch.allclose(taps.convergence(outputs, mask), whole)


def test_confidence_falls_with_the_spread_of_draws(taken):
    assert taps.confidence(torch.ones(1, 4, 2, 3)) == 1
    assert torch.allclose(taken["confidence"], torch.exp(-taken["actions"].std(1).mean((1, 2))))


def test_confidence_ignores_padding(golden_model, given):
    noise = taps.draw_noise(golden_model, [0], 2)
    names = ["actions", "confidence"]
    taken = taps.collect(golden_model, given, names, noise=noise, action_dim=2)
    assert torch.allclose(taken["confidence"], taps.confidence(taken["actions"][..., :2]))


def test_noise_of_a_seed_does_not_depend_on_its_batch(golden_model):
    together = taps.draw_noise(golden_model, [7, 8], 2)
    assert torch.equal(together[1], taps.draw_noise(golden_model, [8], 2)[0])
    torch.manual_seed(7)
    assert torch.equal(together[:1, 0], torch.randn(1, 16, 32))


def test_only_what_is_asked_is_computed(golden_model, given):
    with backbone.outputs_of(golden_model.language, golden_model.head.vlln) as calls:
        taps.collect(golden_model, given, ["image_tokens", "image_mask"])
        assert not calls
        taps.collect(golden_model, given, ["backbone_features"])
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("names", "noise", "message"),
    [
        (["colour"], None, r"no such features: \['colour'\]; there are input_ids"),
        (["actions"], None, "need noise.*draw_noise"),
        (["actions"], torch.zeros(1, 16, 32), r"got \[1, 16, 32\]"),
        (["confidence"], torch.zeros(1, 1, 16, 32), "at least two"),
    ],
)
def test_bad_requests(names, noise, message, golden_model, given):
    with pytest.raises(taps.TapError, match=message):
        taps.collect(golden_model, given, names, noise=noise)


def test_head_taps_refuse_padded_batches(golden_model, prepared):
    padded = prepared("b2pad")
    assert "backbone_features" in taps.collect(golden_model, padded, ["backbone_features"])
    with pytest.raises(taps.TapError, match="equal length"):
        taps.collect(golden_model, padded, ["adapted_features"])


def test_head_taps_need_a_head(golden_folder, given):
    small = checkpoint.load(golden_folder, features_only=True)
    with pytest.raises(taps.TapError, match="without features_only"):
        taps.collect(small, given, ["adapted_features"])


def test_language_rows_equal_the_whole_map(golden_model, prepared):
    """Against transformers' own eager attention, on a padded batch."""
    given = prepared("b2pad")
    queries = torch.tensor([20, 53])
    rows = taps.attention_rows(golden_model, given, layer=1, queries=queries)
    eager = backbone.qwen(dataclasses.replace(golden_model.config.language))
    eager.load_state_dict(golden_model.language.state_dict())
    eager.set_attn_implementation("eager")
    with torch.inference_mode():
        embeddings = golden_model.embed(given.input_ids, golden_model.vision(given.pixel_values)[0])
        maps = eager(inputs_embeds=embeddings, attention_mask=given.attention_mask, output_attentions=True).attentions
    assert torch.allclose(rows, maps[1][:, :, queries], atol=1e-5)
