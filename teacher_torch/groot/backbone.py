"""Vision tower, connector and truncated language model, on transformers' own Siglip and Qwen3 modules."""

import contextlib
from collections.abc import Iterator

import torch
import transformers
from torch import nn

from teacher_torch.groot.config import LanguageConfig, VisionConfig


def siglip(config: VisionConfig) -> nn.Module:
    """SigLIP tower without its pooling head, seen flat: embeddings, encoder, post_layernorm.

    Newer releases of transformers are flat themselves; older ones nest the tower one level deeper.
    """
    model = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            patch_size=config.patch_size,
            image_size=config.image_size,
            layer_norm_eps=config.layer_norm_eps,
            hidden_act="gelu_pytorch_tanh",
            vision_use_head=False,
            attn_implementation="sdpa",
        )
    )
    return getattr(model, "vision_model", model)


def qwen(config: LanguageConfig) -> transformers.Qwen3Model:
    """Qwen3 decoder with only the kept layers, its final norm, and no output head."""
    settings = transformers.Qwen3Config(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        hidden_act="silu",
        attention_bias=False,
        use_sliding_window=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = transformers.Qwen3Model(settings)
    if rope_theta(settings) != config.rope_theta:
        raise RuntimeError(
            f"this release of transformers ({transformers.__version__}) took rope_theta {rope_theta(settings)} "
            f"instead of {config.rope_theta}: install the version that pyproject.toml names"
        )
    return model


def rope_theta(settings: transformers.Qwen3Config) -> float:
    """Rotary base that a Qwen3 really uses; 5.x keeps it in rope_parameters, 4.x in a field of its own."""
    parameters = getattr(settings, "rope_parameters", None)
    return parameters["rope_theta"] if parameters else settings.rope_theta


def restore_buffers(tower: nn.Module, language: transformers.Qwen3Model) -> None:
    """Recompute what no checkpoint holds: patch positions, and rotary frequencies, float32 whatever the weights are."""
    device = tower.post_layernorm.weight.device
    if device.type == "meta":
        return
    tower.embeddings.position_ids = torch.arange(tower.embeddings.num_positions, device=device)[None]
    with device:
        language.rotary_emb = type(language.rotary_emb)(config=language.config)


@contextlib.contextmanager
def outputs_of(*modules: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the output of each module, in call order, while the block runs."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple, output: torch.Tensor | tuple) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def mean_attention(attention: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Attention that each token receives, mean over heads and queries, from one layer's own queries and keys.

    attention: a SigLIP attention module; hidden: its (normed) input [n, t, d]. Returns float32 [n, t], summing to 1.
    """
    heads = (*hidden.shape[:2], attention.num_heads, attention.head_dim)
    query = attention.q_proj(hidden).view(heads).transpose(1, 2).float()
    key = attention.k_proj(hidden).view(heads).transpose(1, 2).float()
    weights = (query @ key.transpose(-1, -2) * attention.scale).softmax(-1)
    return weights.mean((1, 2))
