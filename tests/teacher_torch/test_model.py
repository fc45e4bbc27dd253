"""Properties of the model itself: trainable, castable, causal, strict about its inputs."""

import dataclasses

import pytest
import torch

from teacher_torch.groot import backbone, config
from teacher_torch.groot.model import Groot


@pytest.fixture(scope="module")
def sizes(golden_model) -> config.GrootConfig:
    return golden_model.config


@pytest.fixture(scope="module")
def batch(sizes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[1, 2, *[sizes.image_token_id] * 16, 3]])
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return ids, torch.ones_like(ids), pixels


def test_random_model_trains(sizes, batch):
    torch.manual_seed(0)
    model = Groot(sizes).train()
    features = model.features(*batch)
    actions = model.actions(features, torch.zeros(1, 1, 64), torch.tensor([31]), torch.randn(1, 16, 32))
    actions.square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not silent


def test_cast_keeps_rotary_frequencies_exact(sizes):
    model = Groot(sizes)
    before = model.language.rotary_emb.inv_freq.clone()
    model.to(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.language.rotary_emb.inv_freq, before)


def test_rotary_base_is_the_configured_one(sizes):
    language = dataclasses.replace(sizes.language, rope_theta=12345.0)
    assert backbone.rope_theta(backbone.qwen(language).config) == 12345.0
    assert backbone.rope_theta(backbone.qwen(sizes.language).config) == 1e6


def test_features_are_causal(golden_model, batch):
    ids, mask, pixels = batch
    other = ids.clone()
    other[0, -1] = 4
    with torch.inference_mode():
        a, b = (golden_model.features(i, mask, pixels) for i in (ids, other))
    assert torch.equal(a[0, :-1], b[0, :-1])
    assert not torch.equal(a[0, -1], b[0, -1])


def test_padding_on_the_left_changes_positions_not_causality(golden_model, batch):
    """Positions are not mask-aware, yet rotary attention depends on distances only: real tokens keep their features."""
    ids, mask, pixels = batch
    longer = torch.cat([torch.zeros_like(ids[:, :5]), ids], 1)
    padded = torch.cat([torch.zeros_like(mask[:, :5]), mask], 1)
    with torch.inference_mode():
        a, b = golden_model.features(*batch), golden_model.features(longer, padded, pixels)
    assert torch.allclose(a, b[:, 5:], atol=1e-5)
    assert torch.isfinite(b).all()


def test_vision_attention_is_what_the_last_layer_does(golden_model, batch):
    tokens, received = golden_model.vision(batch[2], attention=True)
    assert received.shape == tokens.shape[:2]
    assert torch.allclose(received.sum(-1), torch.ones(1))
    attention = golden_model.tower.encoder.layers[-1].self_attn
    with backbone.outputs_of(golden_model.tower.encoder.layers[-1].layer_norm1) as seen:
        golden_model.vision(batch[2])
    query, key = (p(seen[0]).unflatten(-1, (4, 12)).transpose(1, 2) for p in (attention.q_proj, attention.k_proj))
    weights = torch.einsum("nhqd,nhkd->nhqk", query, key).div(12**0.5).softmax(-1)
    assert torch.allclose(received, weights.mean((1, 2)), atol=1e-6)
    assert golden_model.vision(batch[2])[1] is None


def test_prompt_and_tiles_must_agree(golden_model, batch):
    ids, mask, pixels = batch
    with pytest.raises(ValueError, match=r"16 image tokens \(151669\).*give 32"):
        golden_model.features(ids, mask, pixels.repeat(2, 1, 1, 1))


def test_token_outside_the_vocabulary(golden_model, batch):
    ids, mask, pixels = batch
    with pytest.raises(ValueError, match=r"token id 151680 is outside.*151680"):
        golden_model.features(ids + (ids == 3) * 151677, mask, pixels)


def test_noise_of_another_shape(golden_model):
    with pytest.raises(ValueError, match=r"noise must be \[1, 16, 32\], got \[1, 8, 32\]"):
        golden_model.actions(torch.zeros(1, 4, 64), torch.zeros(1, 1, 64), torch.tensor([31]), torch.zeros(1, 8, 32))


def test_embodiment_outside_the_tables(golden_model):
    arguments = torch.zeros(1, 4, 64), torch.zeros(1, 1, 64), torch.tensor([32]), torch.zeros(1, 16, 32)
    with pytest.raises(ValueError, match=r"embodiment ids .* 0..31, got \[32\]"):
        golden_model.actions(*arguments)


def test_path_runs_from_noise_to_actions(golden_model):
    noise = torch.randn(1, 16, 32)
    with torch.inference_mode():
        context = golden_model.context(torch.randn(1, 5, 64), torch.zeros(1, 1, 64), torch.tensor([31]))
        chunk = golden_model.integrate(context, noise, steps=3, attention=True)
    assert chunk.path.shape == (1, 4, 16, 32)
    assert chunk.velocity.shape == (1, 3, 16, 32)
    assert torch.equal(chunk.path[:, 0], noise)
    assert torch.equal(chunk.path[:, -1], chunk.actions)
    assert torch.allclose(chunk.path.diff(dim=1), chunk.velocity / 3, atol=1e-5)
    assert torch.allclose(chunk.attention.sum(-1), torch.ones(1))
