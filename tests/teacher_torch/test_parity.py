"""The model equals the official one, number by number, from pixels and text to actions."""

import numpy as np
import pytest
import torch

from teacher_torch.groot import backbone, checkpoint

CASES = ("v1_224", "v2_224", "t1_900", "v1_256x320")
TOLERANCE = 1e-5


def close(ours: torch.Tensor, official: np.ndarray) -> None:
    """Equal within the tolerance of the golden cases; the values themselves reach 4 to 10."""
    np.testing.assert_allclose(ours.numpy(), official, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_every_stage_equals_the_official_values(name, golden_model, golden_case, prepared):
    case, given = golden_case(f"tiny_{name}"), prepared(name)
    head = golden_model.head
    first = golden_model.language.layers[0]
    parts = [golden_model.tower.post_layernorm, first, head.state_encoder, head.action_decoder]
    blocks = head.model.transformer_blocks
    with torch.inference_mode():
        with backbone.outputs_of(*parts) as seen:
            features = golden_model.features(given.input_ids, given.attention_mask, given.pixel_values)
            arguments = (given.state, given.embodiment_id, torch.tensor(case["noise"]))
            actions = golden_model.actions(features, *arguments)
        with backbone.outputs_of(head.model.timestep_encoder.timestep_embedder, blocks[0], blocks[1]) as steps:
            golden_model.actions(features, *arguments)
        image_tokens = golden_model.vision(given.pixel_values)[0]
        adapted = golden_model.adapted(features)
    close(features, case["backbone_features"])
    close(actions, case["action_pred"])
    close(adapted, case["adapted_features"])
    close(image_tokens, case["image_tokens"])
    close(seen[0], case["vision_last_hidden"])
    close(seen[1], case["llm_layer0"])
    close(seen[2], case["state_token"])
    close(torch.stack(seen[3:]), case["velocity_tokens"])
    for i, key in enumerate(("timestep_embedding", "dit_block0", "dit_block1")):
        close(torch.stack(steps[i::3]), case[key])


def test_padded_batch_equals_where_official_values_are_defined(golden_model, golden_case, prepared):
    case, given = golden_case("tiny_b2pad"), prepared("b2pad")
    real = given.attention_mask.bool()
    with torch.inference_mode():
        features = golden_model.features(given.input_ids, given.attention_mask, given.pixel_values)
        actions = golden_model.actions(features, given.state, given.embodiment_id, torch.tensor(case["noise"]))
    assert not real.all()
    assert torch.isfinite(features).all()
    close(features[real], case["backbone_features"][real.numpy()])
    close(actions[1], case["action_pred"][1])


def test_bfloat16_stays_near_float32(golden_folder, golden_model, golden_case, prepared):
    """Root mean square error over scale, measured: features 0.9 to 1.1 %, actions 0.44 %; about twice is allowed."""
    case, given = golden_case("tiny_v1_224"), prepared("v1_224")
    small = checkpoint.load(golden_folder)
    with torch.inference_mode():
        features = small.features(given.input_ids, given.attention_mask, given.pixel_values)
        actions = small.actions(features, given.state, given.embodiment_id, torch.tensor(case["noise"]))
    assert features.dtype == actions.dtype == torch.bfloat16
    for ours, key, share in ((features, "backbone_features", 0.02), (actions, "action_pred", 0.01)):
        error = np.sqrt(np.mean((ours.float().numpy() - case[key]) ** 2))
        assert error < share * np.sqrt(np.mean(case[key] ** 2))


def test_context_is_projected_once_per_chunk(golden_model, golden_case):
    case = golden_case("tiny_v1_224")
    key = golden_model.head.model.transformer_blocks[0].attn1.to_k
    with torch.inference_mode(), backbone.outputs_of(key) as calls:
        golden_model.actions(
            torch.tensor(case["backbone_features"]),
            torch.tensor(case["state"]),
            torch.tensor(case["embodiment_id"]),
            torch.tensor(case["noise"]),
        )
    assert len(calls) == 1
