"""The check command: what it reports, and one clear error for everything that can be missing."""

import json
import pathlib
import shutil

import pytest
import safetensors.torch
import torch

from bridge import embodiment
from teacher_torch import check
from teacher_torch.groot import keys

METADATA = pathlib.Path(__file__).parents[1] / "golden" / "chain_metadata.json"


def test_reports_contents_and_acts(golden_folder, capsys):
    assert check.main([str(golden_folder), "--metadata", str(METADATA)]) == 0
    text = capsys.readouterr().out
    for piece in ("vision tower", "output head (not loaded)", "22,061,960", "BF16", "licence", "random teacher"):
        assert piece in text
    assert "embodiments: new_embodiment, arc; acting as new_embodiment (projector 31)" in text
    assert "action.single_arm [16, 5]" in text
    assert "it loads and acts" in text


def test_features_only(golden_folder, capsys):
    assert check.main([str(golden_folder), "--features-only", "--dtype", "float32"]) == 0
    text = capsys.readouterr().out
    assert "acting as arc" in text
    assert "loaded as float32" in text
    assert "it loads and gives features" in text
    assert "actions" not in text


@pytest.fixture
def broken(golden_folder, tmp_path) -> pathlib.Path:
    """A copy of the checkpoint, to be broken."""
    return pathlib.Path(shutil.copytree(golden_folder, tmp_path / "copy"))


def refusal(capsys, *arguments: str | pathlib.Path) -> str:
    assert check.main(list(map(str, arguments))) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    return text


def test_missing_weights(broken, capsys):
    (broken / "model.safetensors").unlink()
    assert "no weights in" in refusal(capsys, broken)


def test_missing_tensor(broken, capsys):
    state = safetensors.torch.load_file(broken / "model.safetensors")
    del state["action_head.vlln.weight"]
    safetensors.torch.save_file(state, broken / "model.safetensors")
    assert "missing: action_head.vlln.weight" in refusal(capsys, broken)


def test_weights_that_are_not_finite(broken, capsys):
    state = safetensors.torch.load_file(broken / "model.safetensors")
    state["backbone.eagle_model.mlp1.0.bias"][0] = torch.nan
    safetensors.torch.save_file(state, broken / "model.safetensors")
    assert "image_tokens is not finite" in refusal(capsys, broken)


def test_missing_config(broken, capsys):
    (broken / "config.json").unlink()
    assert "config.json is missing" in refusal(capsys, broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_head_cfg": None, "model_type": "gr00t_n1_6"}, "no action_head_cfg (model_type 'gr00t_n1_6')"),
        ({"backbone_cfg": {"project_to_dim": 1536, "select_layer": 3}}, "project_to_dim is 1536, not None"),
        ({"action_head_cfg": {"diffusion_model_cfg": {}}}, "is not GR00T N1.5"),
        ({"backbone_cfg": {"select_layer": -1}}, "select_layer must be the number of layers kept"),
    ],
)
def test_other_models_are_refused(change, message, broken, capsys):
    content = json.loads((broken / "config.json").read_text()) | change
    (broken / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    assert message in refusal(capsys, broken)


def test_missing_tokenizer(golden_folder, tmp_path, capsys):
    assert "no tokenizer in" in refusal(capsys, golden_folder, "--tokenizer", tmp_path)


def test_tokenizer_of_another_model(broken, capsys):
    """One image token id of the file's tokenizer, another in the model's configuration."""
    content = json.loads((broken / "eagle_config.json").read_text())
    (broken / "eagle_config.json").write_text(json.dumps(content | {"image_token_index": 7}))
    assert "the prompt has 0 image tokens (7)" in refusal(capsys, broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--embodiment", "gr1"], "unknown embodiment 'gr1'"),
        (["--metadata", METADATA, "--embodiment", "gr1"], "it holds ['new_embodiment']"),
        (["--metadata", "nowhere.json"], "no embodiment metadata at nowhere.json"),
        (["--device", "cuda"], "no CUDA device"),
    ],
)
def test_options_that_do_not_fit(options, message, golden_folder, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message in refusal(capsys, golden_folder, *options)


def test_stand_in_that_was_not_trained(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "python -m teacher_torch.posttrain --task arc" in refusal(capsys)


def test_embodiments_of_the_checkpoint_come_first(broken, capsys):
    embodiment.save(broken / "experiment_cfg" / "metadata.json", embodiment.load(METADATA))
    assert check.main([str(broken)]) == 0
    assert "acting as new_embodiment" in capsys.readouterr().out
    assert check.main([str(broken), "--embodiment", "arc"]) == 0
    assert "acting as arc" in capsys.readouterr().out


def test_every_official_tensor_has_a_component():
    names = json.loads((METADATA.parent / "keys_full.json").read_text())
    starts = [start for group in check.COMPONENTS.values() for start in group]
    assert all(any(keys.canonical(key).startswith(start) for start in starts) for key in names)
