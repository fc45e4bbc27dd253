"""Every kind of file that holds a GR00T N1.5 loads to the same model; every kind of damage is one clear error."""

import json
import pathlib
import shutil
from collections.abc import Callable

import huggingface_hub
import pytest
import safetensors.torch
import torch

from teacher_torch.groot import checkpoint, keys, shards
from teacher_torch.groot.model import Groot

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def official(golden_folder) -> State:
    return safetensors.torch.load_file(golden_folder / "model.safetensors")


@pytest.fixture
def write(golden_folder, tmp_path) -> Callable[[State], pathlib.Path]:
    """A folder with these tensors and the tiny configuration."""

    def make(state: State) -> pathlib.Path:
        for name in ("config.json", "eagle_config.json"):
            shutil.copyfile(golden_folder / name, tmp_path / name)
        safetensors.torch.save_file(state, tmp_path / "model.safetensors")
        return tmp_path

    return make


def same(a: Groot, b: Groot) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def flat(state: State) -> State:
    return {k.replace("vision_model.vision_model.", "vision_model."): v for k, v in state.items()}


VARIANTS = {
    "lerobot prefix": lambda s: {"_groot_model." + k: v for k, v in s.items()},
    "flat vision keys": flat,
    "fp32 head": lambda s: {k: v.float() if k.startswith("action_head.") else v for k, v in s.items()},
    "no output head": lambda s: {k: v for k, v in s.items() if k != keys.LM_HEAD},
    "no token embedding": lambda s: {k: v for k, v in s.items() if k != keys.EMBEDDING},
    "no pooling head": lambda s: {k: v for k, v in s.items() if not k.startswith(keys.POOLING)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layout_gives_the_same_model(variant, official, write, golden_model):
    assert same(checkpoint.load(write(VARIANTS[variant](official)), dtype=torch.float32), golden_model)


def test_features_only_ignores_everything_else(official, write, golden_model):
    state = {k: v for k, v in flat(official).items() if not k.startswith("action_head.")}
    small = checkpoint.load(write(state), dtype=torch.float32, features_only=True)
    assert small.head is None
    assert all(torch.equal(v, golden_model.state_dict()[k]) for k, v in small.state_dict().items())
    with pytest.raises(RuntimeError, match="features_only"):
        small.adapted(torch.zeros(1, 1, 64))


def test_unneeded_tensors_are_never_read(golden_folder, monkeypatch):
    read, seen = shards.read, []
    monkeypatch.setattr(shards, "read", lambda wanted: seen.extend(wanted) or read(wanted))
    checkpoint.load(golden_folder, features_only=True)
    assert seen
    assert not [key for key in seen if keys.unused(key) or key.startswith("action_head.")]


@pytest.fixture
def sharded(official, write) -> pathlib.Path:
    folder = write({})
    (folder / "model.safetensors").unlink()
    halves = {"a.safetensors": sorted(official)[::2], "b.safetensors": sorted(official)[1::2]}
    for name, names in halves.items():
        safetensors.torch.save_file({key: official[key] for key in names}, folder / name)
    table = {key: name for name, names in halves.items() for key in names}
    (folder / shards.INDEX).write_text(json.dumps({"weight_map": table}))
    return folder


def test_shards_with_an_index(sharded, golden_model):
    assert same(checkpoint.load(sharded, dtype=torch.float32), golden_model)


def test_missing_shard_is_named(sharded):
    (sharded / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors.*download the missing"):
        checkpoint.load(sharded)


def test_index_that_lies(sharded):
    table = json.loads((sharded / shards.INDEX).read_text())
    table["weight_map"]["ghost"] = "a.safetensors"
    (sharded / shards.INDEX).write_text(json.dumps(table))
    with pytest.raises(checkpoint.CheckpointError, match="ghost"):
        checkpoint.load(sharded)


def test_index_that_forgets_a_tensor(sharded):
    table = json.loads((sharded / shards.INDEX).read_text())
    forgotten = next(key for key in table["weight_map"] if "vlln" in key)
    del table["weight_map"][forgotten]
    (sharded / shards.INDEX).write_text(json.dumps(table))
    with pytest.raises(checkpoint.CheckpointError, match=rf"does not name: \['{forgotten}'\]"):
        checkpoint.load(sharded)


def test_file_reopened_often_gives_the_same(golden_folder, golden_model, monkeypatch):
    monkeypatch.setattr(shards, "MAPPED_BYTES", 1)
    assert same(checkpoint.load(golden_folder, dtype=torch.float32), golden_model)


def test_all_faults_are_listed_in_one_error(official, write):
    names = sorted(k for k in official if "mlp1" in k or "future_tokens" in k or "vlln" in k)
    state = {k: v for k, v in official.items() if k not in names[:2]}
    state[names[2]] = torch.zeros(3, 3, dtype=torch.bfloat16)
    state[names[3]] = state[names[3]].to(torch.int8)
    state["backbone.eagle_linear.weight"] = torch.zeros(1)
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load(write(state))
    text = str(caught.value)
    assert "(5 tensors)" in text
    assert f"missing: {names[0]}" in text
    assert f"missing: {names[1]}" in text
    assert f"wrong shape: {names[2]} is [3, 3]" in text
    assert f"wrong type: {names[3]} is I8" in text
    assert "unknown: backbone.eagle_linear.weight" in text
    assert "Fix:" in text


def test_both_halves_of_the_tied_embedding_missing(official, write):
    state = {k: v for k, v in official.items() if k not in (keys.LM_HEAD, keys.EMBEDDING)}
    with pytest.raises(checkpoint.CheckpointError, match=rf"missing: {keys.EMBEDDING}"):
        checkpoint.load(write(state))


def test_wrong_config_is_an_error_of_shapes(golden_folder, write, official):
    folder = write(official)
    (folder / "eagle_config.json").unlink()
    with pytest.raises(ValueError, match="adapter heads"):
        checkpoint.load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100_000])
def test_truncated_file_names_itself(keep, golden_folder, write):
    folder = write({})
    whole = (golden_folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:keep])
    with pytest.raises(checkpoint.CheckpointError, match=r"model\.safetensors cannot be read.*download it again"):
        checkpoint.load(folder)


def test_folder_without_weights(write):
    folder = write({})
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"expected model.safetensors.*pytorch_model.bin"):
        checkpoint.load(folder)


@pytest.mark.parametrize("path", ["./nowhere", "nowhere", "/a/b/c"])
def test_path_that_is_no_folder(path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint folder.*check the path"):
        checkpoint.load(path)


def test_hub_id_is_asked_of_the_hub(golden_folder, golden_model, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(golden_folder))
    assert same(checkpoint.load("someone/something", dtype=torch.float32), golden_model)


def test_hub_out_of_reach(monkeypatch):
    def fail(name: str, allow_patterns: list[str]) -> str:
        raise ConnectionError("no route\nlong story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=r"ConnectionError: no route\).*hf download a/b"):
        checkpoint.load("a/b")


def test_saved_model_loads_and_keeps_the_official_names(golden_folder, golden_model, official, tmp_path):
    model = checkpoint.load(golden_folder)
    checkpoint.save(model, tmp_path)
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert set(official) - set(stored) == {key for key in official if keys.unused(key)}
    assert all(torch.equal(stored[key], official[key]) for key in stored)
    again = checkpoint.load(tmp_path)
    assert again.config == model.config
    assert same(again, model)


def test_features_only_model_cannot_be_saved(golden_folder, tmp_path):
    with pytest.raises(ValueError, match="no action head"):
        checkpoint.save(checkpoint.load(golden_folder, features_only=True), tmp_path)


def test_digest_follows_weights_and_configuration_alone(golden_folder, official, write):
    first = checkpoint.digest(golden_folder)
    folder = write(official)
    before = checkpoint.digest(folder)
    (folder / "README.md").write_text("other files do not count")
    assert checkpoint.digest(folder) == before
    (folder / "config.json").write_text("{}")
    assert checkpoint.digest(folder) != before
    assert first == checkpoint.digest(golden_folder)
