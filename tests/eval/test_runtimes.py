"""An artifact with model.onnx, run by every runtime: they agree, and say what is missing."""

import dataclasses
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from flax import nnx

from eval import artifact, export, export_command, onnx_export, policy, runtimes
from student_jax import config, irp, presets, sizes
from student_jax.student import Student
from train import words

ABOUT = artifact.About("tiny", True, "arc", {"seed": 0}, {"id": "t", "provenance": "none", "licence": "", "digest": ""})
SIDE = 48
OTHERS = ("onnxruntime", "openvino")
FIELDS = ("energy", "steps", "reason", "confidence", "atp", "features")

pytestmark = pytest.mark.usefixtures("quickly")


def seeing():
    settings = presets.make("tiny", config.Target(width=8, grid=4))
    return Student(settings, rngs=nnx.Rngs(0)), artifact.Kit((1, 1, SIDE, SIDE, 3))


def orchestrated():
    """With noise in every weight: as made, its actions and gates are all alike."""
    lexicon = words.train(["open the drawer", "push the puck"] * 3, 300)
    robot = config.Robot(sizes.ActionSpace(4, 3, 5), frames=2, objects=2)
    settings = presets.make("tiny", config.Target(width=8, grid=4), task="robot", robot=robot)
    settings = dataclasses.replace(presets.orchestrated(settings, "tiny"), halt=irp.Halt(min_fall=0.0))
    student, rng = Student(settings, rngs=nnx.Rngs(0)), np.random.default_rng(0)
    for leaf in (leaf for _, leaf in nnx.to_flat_state(nnx.state(student, nnx.Param))):
        leaf[...] = leaf[...] + 0.1 * rng.standard_normal(leaf[...].shape).astype(np.float32)
    return student, artifact.Kit((1, 2, SIDE, SIDE, 3), tokenizer=lexicon.to_json())


STUDENTS = {"seeing": seeing, "orchestrated": orchestrated}


@pytest.fixture(scope="module", params=STUDENTS)
def folder(request, tmp_path_factory):
    student, kit = STUDENTS[request.param]()
    folder = tmp_path_factory.mktemp("artifacts") / request.param
    export.write(folder, student, ABOUT, kit, dtype="float32", platforms=("cpu",))
    onnx_export.write(folder, student, kit, "float32")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    student, kit = seeing()
    folder = tmp_path_factory.mktemp("artifacts") / "small"
    export.write(folder, student, ABOUT, kit, dtype="int8", platforms=("cpu",))
    onnx_export.write(folder, student, kit, "int8")
    return folder


def given(loaded, batch=3, seed=0):
    """What the program of a policy is asked, by name."""
    rng = np.random.default_rng(seed)
    shape = (batch, *loaded.meta["video"])
    asked = {
        "video": rng.integers(0, 256, shape, dtype=np.uint8),
        "atp": np.full(batch, loaded.meta["atp"]["full"], np.float32),
        "trust": np.ones((batch, len(loaded.meta["modules"])), np.float32),
        "seed": np.uint32(0),
    }
    if loaded.meta["tokenizer"]:
        length = loaded.meta["language_length"]
        mask = np.arange(length)[None] < np.array([[2], [length], [5]])[:batch]
        tokens = np.where(mask, rng.integers(1, 260, (batch, length)), 0).astype(np.int32)
        asked |= {"tokens": tokens, "token_mask": mask, "state": rng.standard_normal((batch, 1, 5)).astype(np.float32)}
    return asked


def flat(found, path=""):
    if not isinstance(found, dict):
        return {path: np.asarray(found)}
    return {name: leaf for key, value in found.items() for name, leaf in flat(value, f"{path}.{key}").items()}


@pytest.mark.parametrize("runtime", OTHERS)
def test_every_runtime_says_what_xla_says_at_any_budget_and_trust(folder, runtime):
    xla, other = policy.load(folder, "xla"), policy.load(folder, runtime)
    rng, taken = np.random.default_rng(1), set()
    for share in (0.0, 0.3, 0.6, 1.0):
        asked = given(xla, seed=int(10 * share))
        asked["atp"] *= share
        asked["trust"] *= rng.random(asked["trust"].shape, np.float32)
        want, got = flat(xla.run(asked)), flat(other.run(asked))
        assert got.keys() == want.keys()
        taken |= {int(steps) for name, leaf in want.items() if name.startswith(".steps") for steps in leaf}
        for name, leaf in want.items():
            assert (got[name].shape, got[name].dtype) == (leaf.shape, leaf.dtype), name
            np.testing.assert_allclose(got[name], leaf, atol=1e-5, rtol=0, err_msg=name)
    assert len(taken) > 1  # the budget was felt


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_decision_is_the_same_object_of_the_same_fields(folder, runtime):
    loaded = policy.load(folder, runtime)
    if loaded.meta["tokenizer"]:
        pytest.skip("a student without an embodiment is asked through the program alone")
    decision = loaded.act(given(loaded, 2)["video"], atp=[0.0, 1.0])
    assert isinstance(decision, policy.Decision)
    assert decision.energy["vision"].shape == (2,)
    assert decision.actions is None


def test_the_answers_of_one_call_outlive_the_next(folder):
    loaded = policy.load(folder, "openvino")
    first = loaded.run(given(loaded, 1))
    kept = {name: leaf.copy() for name, leaf in flat(first).items()}
    loaded.run(given(loaded, 1, seed=5))
    for name, leaf in flat(first).items():
        assert np.array_equal(leaf, kept[name]), name


@pytest.mark.parametrize("runtime", OTHERS)
def test_int8_rests_as_int8_and_is_close(small, runtime):
    xla, other = policy.load(small, "xla"), policy.load(small, runtime)
    want, got = (one.run(given(xla))["features"]["image_tokens"].ravel() for one in (xla, other))
    assert want @ got / np.linalg.norm(want) / np.linalg.norm(got) > 0.999
    assert xla.meta["onnx"]["operators"]["MatMul"] > 0


def test_no_jax_is_needed_and_nothing_is_reported_to_anyone(small):
    script = f"""
import os, sys
os.fork = None
sys.modules.update(dict.fromkeys(("jax", "flax", "safetensors", "onnx", "student_jax", "train", "bridge")))
import numpy as np
from eval import policy
for runtime in {OTHERS}:
    decision = policy.load({str(small)!r}, runtime).act(np.zeros((1, 1, 1, {SIDE}, {SIDE}, 3), np.uint8))
    assert np.isfinite(decision.confidence).all()
assert sys.modules["openvino_telemetry"] is None
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_missing_package_is_named_with_the_extra(small, runtime, monkeypatch):
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(policy.ArtifactError, match=f"pip install {runtime}, or use the extra `onnx`"):
        policy.load(small, runtime)


@pytest.mark.parametrize("runtime", OTHERS)
def test_an_artifact_without_a_model_says_how_to_get_one(small, tmp_path, runtime):
    folder = copied(small, tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    del meta["files"]["model.onnx"]
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(policy.ArtifactError, match="--onnx"):
        policy.load(folder, runtime)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_damaged_model_is_refused(small, tmp_path, runtime):
    folder = copied(small, tmp_path)
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(policy.ArtifactError, match=r"model\.onnx is not the file that was exported"):
        policy.load(folder, runtime)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.onnx is missing"):
        policy.load(folder, runtime)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_model_that_a_runtime_cannot_read_is_an_error_with_its_version(small, tmp_path, runtime, monkeypatch):
    folder = copied(small, tmp_path)
    (folder / "model.onnx").write_bytes(b"no model at all")
    monkeypatch.setattr(policy, "read_meta", lambda folder: json.loads((folder / "meta.json").read_text()))
    with pytest.raises(policy.ArtifactError, match=r"cannot read .*model\.onnx"):
        policy.load(folder, runtime)


def test_the_command_writes_it_compares_it_and_needs_the_extra(make_acting, tmp_path, monkeypatch, capsys):
    asked = ["--run", str(make_acting(0)), "--size", "32", "32", "--dtype", "float32", "--onnx"]
    assert export_command.main([*asked, "--out", str(tmp_path / "a")]) == 0
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    assert meta["parity_onnx"]["agreed"] == 1.0
    assert meta["parity_onnx"]["outputs"]["actions"]["max_abs"] <= 1e-5
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_command.main([*asked, "--out", str(tmp_path / "b")]) == 2
    assert "sage-distill[onnx]" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_student_without_an_onnx_form_is_a_user_error(small, tmp_path, monkeypatch):
    student, kit = seeing()
    call = lambda weights, given: {"atp": given["seed"] + 1}  # noqa: E731
    made = types.SimpleNamespace(student=student, weights={}, call=call)
    monkeypatch.setattr(export, "prepare", lambda *_: made)
    with pytest.raises(export.ExportError, match="uint32"):
        onnx_export.write(copied(small, tmp_path), student, kit, "float32")


def copied(folder, to):
    return shutil.copytree(folder, to / "copy")


def test_left_to_itself_a_large_student_takes_openvino_where_that_can_run(monkeypatch):
    with_model = {"files": {"model.onnx": ""}, "parameters": 28_000_000}
    monkeypatch.setattr(runtimes, "ACCELERATORS", ())
    assert runtimes.best(with_model) == "openvino"
    assert runtimes.best(with_model | {"parameters": 870_000}) == "xla"
    assert runtimes.best(with_model | {"files": {"program": ""}}) == "xla"
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    assert runtimes.best(with_model) == "xla"
    monkeypatch.undo()
    monkeypatch.setattr(runtimes, "ACCELERATORS", ("null",))
    assert runtimes.best(with_model) == "xla"
