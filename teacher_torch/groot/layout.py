"""The official layout of a configuration, for the folders that this project writes."""

import dataclasses

from teacher_torch.groot import config as sizes


def official(config: sizes.GrootConfig) -> tuple[dict, dict]:
    """The contents of config.json and eagle_config.json for these sizes, in the official layout."""
    head = config.head
    stack = {"final_dropout": True, "positional_embeddings": None}
    dit = {**dataclasses.asdict(head.dit), **stack, "interleave_self_attention": True, "norm_type": "ada_norm"}
    action_head = {
        **{name: getattr(head, field) for name, field in sizes.HEAD_FIELDS.items()},
        "add_pos_embed": True,
        "use_vlln": True,
        "backbone_embedding_dim": config.width,
        "diffusion_model_cfg": {**dit, "cross_attention_dim": config.width, "output_dim": head.output_dim},
        "vl_self_attention_cfg": {**dataclasses.asdict(head.adapter), **stack},
    }
    backbone = {"select_layer": config.language.num_hidden_layers, "project_to_dim": None, "reproject_vision": False}
    top = {
        "architectures": ["GR00T_N1_5"],
        "model_type": "gr00t_n1_5",
        "hidden_size": config.width,
        "action_dim": head.action_dim,
        "action_horizon": head.horizon,
        "action_head_cfg": action_head,
        "backbone_cfg": backbone,
    }
    vision = {"model_type": "siglip_vision_model", "hidden_act": "gelu_pytorch_tanh", "vision_use_head": False}
    text = {"model_type": "qwen3", "hidden_act": "silu", "tie_word_embeddings": True}
    eagle = {
        "model_type": "eagle_2_5_vl",
        "image_token_index": config.image_token_id,
        "force_image_size": config.tile,
        "mlp_connector_layers": 1,
        "select_layer": -1,
        "use_pixel_shuffle": False,
        "vision_config": {**vision, **dataclasses.asdict(config.vision)},
        "text_config": {**text, **dataclasses.asdict(config.language)},
    }
    return top, eagle
