"""Sizes of a GR00T N1.5, read from and written to the official config.json and eagle_config.json."""

import dataclasses
import json
import pathlib

CONFIG, EAGLE_CONFIG = "config.json", "eagle_config.json"


# Official names in action_head_cfg -> ours.
HEAD_FIELDS = {
    "hidden_size": "hidden_size",
    "input_embedding_dim": "input_embedding_dim",
    "action_dim": "action_dim",
    "max_state_dim": "state_dim",
    "action_horizon": "horizon",
    "num_target_vision_tokens": "future_tokens",
    "max_seq_len": "max_positions",
    "max_num_embodiments": "embodiments",
    "num_timestep_buckets": "buckets",
    "num_inference_timesteps": "steps",
}


class ConfigError(ValueError):
    """A configuration that is not a GR00T N1.5; the message names the file, the key and the fix."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """SigLIP tower; image_size is the side of a tile in pixels."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 224
    layer_norm_eps: float = 1e-6


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """Qwen3 decoder; num_hidden_layers counts the layers that are kept."""

    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 12
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    vocab_size: int = 151680
    max_position_embeddings: int = 40960
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A stack of the action head: inner width is num_attention_heads * attention_head_dim."""

    num_layers: int
    num_attention_heads: int
    attention_head_dim: int
    dropout: float = 0.2

    @property
    def width(self) -> int:
        """Inner width."""
        return self.num_attention_heads * self.attention_head_dim


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Flow-matching action head."""

    hidden_size: int = 1024
    input_embedding_dim: int = 1536
    output_dim: int = 1024
    action_dim: int = 32
    state_dim: int = 64
    horizon: int = 16
    future_tokens: int = 32
    max_positions: int = 1024
    embodiments: int = 32
    buckets: int = 1000
    steps: int = 4
    dit: TransformerConfig = TransformerConfig(16, 32, 48)
    adapter: TransformerConfig = TransformerConfig(4, 32, 64)


@dataclasses.dataclass(frozen=True)
class GrootConfig:
    """A whole model; the defaults are the published nvidia/GR00T-N1.5-3B."""

    vision: VisionConfig = VisionConfig()
    language: LanguageConfig = LanguageConfig()
    head: HeadConfig = HeadConfig()
    image_token_id: int = 151669

    def __post_init__(self) -> None:
        if self.vision.image_size % self.vision.patch_size:
            raise ConfigError(
                f"image_size {self.vision.image_size} is not a multiple of patch {self.vision.patch_size}"
            )
        if self.head.dit.width != self.head.input_embedding_dim:
            raise ConfigError(f"DiT heads * head_dim = {self.head.dit.width}, not {self.head.input_embedding_dim}")
        if self.head.adapter.width != self.width:
            raise ConfigError(f"adapter heads * head_dim = {self.head.adapter.width}, not the backbone's {self.width}")
        if not 0 <= self.image_token_id < self.language.vocab_size:
            raise ConfigError(f"image token {self.image_token_id} is outside the vocabulary {self.language.vocab_size}")

    @property
    def width(self) -> int:
        """Width of image tokens, backbone features and adapted features."""
        return self.language.hidden_size

    @property
    def tile(self) -> int:
        """Side of a tile in pixels."""
        return self.vision.image_size

    @property
    def grid(self) -> int:
        """Tokens along one side of a tile."""
        return self.vision.image_size // self.vision.patch_size

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens of one tile: no pixel shuffle, one per patch."""
        return self.grid**2


def from_folder(folder: pathlib.Path | str) -> GrootConfig:
    """Read config.json and, where present, eagle_config.json; published constants otherwise.

    A LeRobot policy's config.json (type "groot") describes no sizes: the published ones are taken.
    """
    folder = pathlib.Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder of a GR00T N1.5 checkpoint, with its config.json")
    top = _read(path)
    eagle = _read(folder / EAGLE_CONFIG) if (folder / EAGLE_CONFIG).is_file() else {}
    if "action_head_cfg" not in top:
        if top.get("type") == "groot":
            return GrootConfig()
        raise ConfigError(
            f"{path} has no action_head_cfg (model_type {top.get('model_type')!r}): not a GR00T N1.5; "
            "N1, N1.6 and N1.7 checkpoints have other layouts"
        )
    try:
        _refuse_variants(path, top, eagle)
        return GrootConfig(
            vision=_pick(VisionConfig, eagle.get("vision_config", {})),
            language=_language(path, top, eagle.get("text_config", {})),
            head=_head(top),
            image_token_id=eagle.get("image_token_index", GrootConfig.image_token_id),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} lacks or misspells a field ({error!r}): copy it again from the checkpoint"
        ) from error


def _read(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}): copy it again from the checkpoint") from error


def _pick(cls: type, values: dict):
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{key: value for key, value in values.items() if key in names})


def _refuse_variants(path: pathlib.Path, top: dict, eagle: dict) -> None:
    """Raise on switches that would change the computation and that N1.5 never sets."""
    backbone, head = top.get("backbone_cfg", {}), top["action_head_cfg"]
    dit = head["diffusion_model_cfg"]
    expected = {
        "backbone_cfg.project_to_dim": (backbone.get("project_to_dim"), None),
        "backbone_cfg.reproject_vision": (backbone.get("reproject_vision", False), False),
        "action_head_cfg.use_vlln": (head.get("use_vlln", True), True),
        "action_head_cfg.add_pos_embed": (head.get("add_pos_embed", True), True),
        "diffusion_model_cfg.interleave_self_attention": (dit.get("interleave_self_attention"), True),
        "diffusion_model_cfg.norm_type": (dit.get("norm_type"), "ada_norm"),
        "diffusion_model_cfg.positional_embeddings": (dit.get("positional_embeddings"), None),
        "eagle use_pixel_shuffle": (eagle.get("use_pixel_shuffle", False), False),
        "eagle mlp_connector_layers": (eagle.get("mlp_connector_layers", 1), 1),
        "eagle select_layer": (eagle.get("select_layer", -1), -1),
    }
    if wrong := [f"{key} is {got!r}, not {want!r}" for key, (got, want) in expected.items() if got != want]:
        raise ConfigError(f"{path} is not GR00T N1.5: {'; '.join(wrong)}")


def _language(path: pathlib.Path, top: dict, text: dict) -> LanguageConfig:
    kept = top.get("backbone_cfg", {}).get("select_layer", LanguageConfig.num_hidden_layers)
    if kept < 1:
        raise ConfigError(f"{path}: backbone_cfg.select_layer must be the number of layers kept (>= 1), got {kept}")
    layers = min(kept, text.get("num_hidden_layers", kept))
    theta = text.get("rope_theta") or text.get("rope_parameters", {}).get("rope_theta", LanguageConfig.rope_theta)
    return dataclasses.replace(_pick(LanguageConfig, text), num_hidden_layers=layers, rope_theta=float(theta))


def _head(top: dict) -> HeadConfig:
    head = top["action_head_cfg"]
    values = {field: head.get(name, getattr(HeadConfig, field)) for name, field in HEAD_FIELDS.items()}
    return HeadConfig(
        **values,
        output_dim=head["diffusion_model_cfg"]["output_dim"],
        dit=_pick(TransformerConfig, head["diffusion_model_cfg"]),
        adapter=_pick(TransformerConfig, head["vl_self_attention_cfg"]),
    )
