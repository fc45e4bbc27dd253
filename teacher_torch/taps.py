"""What can be taken from the teacher, by name, and how it is computed. Axes: b sample, s token, k noise draw."""

from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F

from teacher_torch.groot import backbone
from teacher_torch.groot.inputs import ModelInputs
from teacher_torch.groot.model import Chunk, Groot

INPUT = ("input_ids", "attention_mask", "image_mask")
VISION = ("image_tokens", "vision_attention")
LANGUAGE = ("backbone_features", "layer_convergence")
HEAD = ("adapted_features",)
ACTION = ("saliency", "noise", "actions", "path", "velocity", "confidence")
NAMES = INPUT + VISION + LANGUAGE + HEAD + ACTION


class TapError(ValueError):
    """A tap that does not exist or cannot be taken from this batch; the message says which can."""


def collect(
    model: Groot,
    inputs: ModelInputs,
    names: Collection[str],
    *,
    noise: torch.Tensor | None = None,
    steps: int = 4,
    action_dim: int | None = None,
) -> dict[str, torch.Tensor]:
    """The named values of one batch, computing no more of the model than they need.

    input_ids int64, attention_mask bool, image_mask bool [b, s]; image_tokens [tiles, tokens, d] and vision_attention
    float32 [tiles, tokens] (last layer, mean over heads and queries, sums to 1 per tile), samples in order;
    backbone_features, adapted_features [b, s, d]; layer_convergence float32 [b, layers];
    noise, actions [b, k, h, a]; path [b, k, steps + 1, h, a]; velocity [b, k, steps, h, a]; saliency float32 [b, s]
    (what the action queries look at, mean over draws, renormalised over image tokens); confidence float32 [b].

    noise: [b, k, h, a], needed for ACTION taps (see `draw_noise`); action_dim: values of the embodiment's action, the
    rest being padding that confidence ignores. Raises TapError on unknown names, and on head taps of padded batches.
    """
    _check(model, inputs, names, noise)
    taken = _inputs(model, inputs)
    with torch.inference_mode():
        if not set(names) <= set(INPUT):
            taken |= _backbone(model, inputs, names)
        if set(names) & {*HEAD, *ACTION}:
            taken["adapted_features"] = model.adapted(taken["backbone_features"])
        if set(names) & set(ACTION):
            taken |= _actions(model, inputs, taken, noise, steps=steps, action_dim=action_dim, names=names)
    return {name: taken[name] for name in names}


def draw_noise(model: Groot, seeds: Sequence[int], draws: int = 1) -> torch.Tensor:
    """Noise [b, k, h, a] from one seed per sample, so that a sample's draws do not depend on its batch.

    The first draw of a seed is what the official code draws for a batch of one after torch.manual_seed(seed).
    """
    shape = (draws, model.config.head.horizon, model.config.head.action_dim)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _check(model: Groot, inputs: ModelInputs, names: Collection[str], noise: torch.Tensor | None) -> None:
    if unknown := [name for name in names if name not in NAMES]:
        raise TapError(f"no such features: {unknown}; there are {', '.join(NAMES)}")
    heads = [name for name in names if name in HEAD + ACTION]
    if heads and model.head is None:
        raise TapError(f"{heads} need the action head: load the checkpoint without features_only")
    if heads and not bool(inputs.attention_mask.all()):
        raise TapError(f"{heads} need samples of equal length, for the head has no mask: batch equal lengths, or one")
    actions = [name for name in names if name in ACTION]
    if actions and (noise is None or noise.ndim != 4 or len(noise) != len(inputs.input_ids)):
        got = None if noise is None else list(noise.shape)
        raise TapError(f"{actions} need noise [b, draws, horizon, action_dim], got {got}: use taps.draw_noise")
    if "confidence" in names and noise.shape[1] < 2:
        raise TapError("confidence is a spread over noise draws: give at least two (8 are usual)")


def _inputs(model: Groot, inputs: ModelInputs) -> dict[str, torch.Tensor]:
    return {
        "input_ids": inputs.input_ids,
        "attention_mask": inputs.attention_mask.bool(),
        "image_mask": inputs.input_ids == model.config.image_token_id,
    }


def _backbone(model: Groot, inputs: ModelInputs, names: Collection[str]) -> dict[str, torch.Tensor]:
    tokens, received = model.vision(inputs.pixel_values, attention="vision_attention" in names)
    taken = {"image_tokens": tokens, "vision_attention": received}
    if set(names) <= {*INPUT, *VISION}:
        return taken
    watched = model.language.layers if "layer_convergence" in names else []
    with backbone.outputs_of(*watched) as outputs:
        embeddings = model.embed(inputs.input_ids, tokens)
        taken["backbone_features"] = model.read(embeddings, inputs.attention_mask)
    if outputs:
        taken["layer_convergence"] = convergence(outputs, inputs.attention_mask)
    return taken


def convergence(outputs: Sequence[torch.Tensor], attention_mask: torch.Tensor) -> torch.Tensor:
    """Cosine of each layer's output [b, s, d] to the last one's, mean over real tokens: float32 [b, layers]."""
    mask = attention_mask.float()
    last = outputs[-1].float()
    cosines = [(F.cosine_similarity(output.float(), last, dim=-1) * mask).sum(1) / mask.sum(1) for output in outputs]
    return torch.stack(cosines, dim=1)


def _actions(
    model: Groot,
    inputs: ModelInputs,
    taken: dict[str, torch.Tensor],
    noise: torch.Tensor,
    *,
    steps: int,
    action_dim: int | None,
    names: Collection[str],
) -> dict[str, torch.Tensor]:
    """Integrate every draw over one context."""
    context = model.context(taken["adapted_features"], inputs.state, inputs.embodiment_id)
    looked = "saliency" in names
    draws = noise.to(inputs.input_ids.device).unbind(1)
    chunks = [model.integrate(context, draw, steps=steps, attention=looked) for draw in draws]

    def stacked(get: Callable[[Chunk], torch.Tensor]) -> torch.Tensor:
        return torch.stack([get(chunk) for chunk in chunks], dim=1)

    actions = stacked(lambda chunk: chunk.actions)
    result = {"noise": noise, "actions": actions}
    result |= {"path": stacked(lambda chunk: chunk.path), "velocity": stacked(lambda chunk: chunk.velocity)}
    if looked:
        result["saliency"] = over_images(stacked(lambda chunk: chunk.attention).mean(1), taken["image_mask"])
    if "confidence" in names:
        result["confidence"] = confidence(actions[..., :action_dim])
    return result


def over_images(attention: torch.Tensor, image_mask: torch.Tensor) -> torch.Tensor:
    """Attention [b, s] kept at image tokens alone and renormalised to sum to 1."""
    kept = attention.float() * image_mask
    return kept / kept.sum(-1, keepdim=True)


def confidence(actions: torch.Tensor) -> torch.Tensor:
    """exp(-mean standard deviation over draws) of normalised actions [b, k, h, a]: float32 [b] in (0, 1]."""
    return torch.exp(-actions.float().std(dim=1).mean((1, 2)))


def attention_rows(model: Groot, inputs: ModelInputs, *, layer: int, queries: torch.Tensor) -> torch.Tensor:
    """Attention of chosen prompt positions in one language layer: float32 [b, heads, q, s]; never the whole map.

    layer: 0 .. layers - 1; queries: int64 [q], positions in the prompt.
    """
    block = model.language.layers[layer]
    attention = block.self_attn
    with torch.inference_mode(), backbone.outputs_of(block.input_layernorm) as seen:
        model.features(inputs.input_ids, inputs.attention_mask, inputs.pixel_values)
        hidden = seen[0]
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        cos, sin = model.language.rotary_emb(hidden, positions[None])
        key = _rotated(attention.k_norm(_heads(attention.k_proj(hidden), attention)), cos, sin)
        query = attention.q_norm(_heads(attention.q_proj(hidden[:, queries]), attention))
        query = _rotated(query, cos[:, queries], sin[:, queries])
        key = key.repeat_interleave(attention.num_key_value_groups, dim=1)
        scores = query.float() @ key.float().transpose(-1, -2) * attention.scaling
        visible = (positions <= queries[:, None]) & inputs.attention_mask.bool()[:, None, None, :]
        return scores.masked_fill(~visible, float("-inf")).softmax(-1)


def _heads(x: torch.Tensor, attention: torch.nn.Module) -> torch.Tensor:
    return x.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # [b, n, t, d / n]


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]
