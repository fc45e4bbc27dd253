"""Sizes: read from official files, defaulted to the published model, written back in the official layout."""

import dataclasses
import json
import pathlib

import pytest

from teacher_torch.groot import config, layout

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def put(folder: pathlib.Path, top: dict, eagle: dict | None = None) -> pathlib.Path:
    (folder / "config.json").write_text(json.dumps(top))
    if eagle is not None:
        (folder / "eagle_config.json").write_text(json.dumps(eagle))
    return folder


def official(size: str) -> tuple[dict, dict]:
    return tuple(json.loads((GOLDEN / f"{name}_{size}.json").read_text()) for name in ("config", "eagle_config"))


def test_published_files_are_the_defaults(tmp_path):
    assert config.from_folder(put(tmp_path, *official("full"))) == config.GrootConfig()


def test_published_constants_serve_where_no_eagle_config_is(tmp_path):
    assert config.from_folder(put(tmp_path, official("full")[0])) == config.GrootConfig()


def test_lerobot_policy_has_the_published_sizes(tmp_path):
    assert config.from_folder(put(tmp_path, {"type": "groot", "chunk_size": 50})) == config.GrootConfig()


def test_layers_kept_are_counted_by_select_layer(tmp_path):
    tiny = config.from_folder(put(tmp_path, *official("tiny")))
    assert (tiny.language.num_hidden_layers, tiny.grid, tiny.tokens_per_tile) == (3, 4, 16)


def test_written_layout_reads_back(tmp_path):
    language = config.LanguageConfig(64, 96, 2, 4, 2, 16, vocab_size=99, rope_theta=5e5)
    head = config.HeadConfig(
        horizon=8, action_dim=5, adapter=config.TransformerConfig(1, 4, 16), dit=config.TransformerConfig(2, 48, 32)
    )
    sizes = config.GrootConfig(config.VisionConfig(image_size=112), language, head, image_token_id=98)
    assert config.from_folder(put(tmp_path, *layout.official(sizes))) == sizes


def test_rotary_base_in_the_newer_spelling(tmp_path):
    top, eagle = official("tiny")
    del eagle["text_config"]["rope_theta"]
    eagle["text_config"]["rope_parameters"] = {"rope_theta": 7.0}
    assert config.from_folder(put(tmp_path, top, eagle)).language.rope_theta == 7.0


def test_field_that_is_missing_is_named(tmp_path):
    top, eagle = official("tiny")
    del top["action_head_cfg"]["diffusion_model_cfg"]["output_dim"]
    with pytest.raises(config.ConfigError, match=r"config\.json lacks or misspells.*output_dim"):
        config.from_folder(put(tmp_path, top, eagle))


def test_file_that_is_not_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(config.ConfigError, match=r"config\.json is not JSON"):
        config.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision": config.VisionConfig(image_size=225)}, "225 is not a multiple of patch 14"),
        ({"head": config.HeadConfig(input_embedding_dim=1024)}, "DiT heads"),
        ({"language": config.LanguageConfig(hidden_size=1024)}, "adapter heads"),
        ({"image_token_id": 151680}, "outside the vocabulary"),
    ],
)
def test_sizes_that_contradict_each_other(changes, message):
    with pytest.raises(config.ConfigError, match=message):
        dataclasses.replace(config.GrootConfig(), **changes)
