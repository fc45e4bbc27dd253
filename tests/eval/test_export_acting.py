"""Runs that act, exported by the real command: what the artifact says is what the student says, in physical units."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from bridge import metaworld_tasks, simulator
from eval import artifact_actor, control, export_command, parity, policy, runs
from train import actor

OURS = ("bridge", "student_jax", "train", "eval", "teacher_torch")
FOREIGN = (
    "flax",
    "torch",
    "optax",
    "orbax",
    "transformers",
    "tyro",
    "rich",
    "tensorstore",
    "grain",
)  # scipy comes with jax
POLICY = pathlib.Path(policy.__file__)

pytestmark = pytest.mark.usefixtures("quickly")


def exported(run, out, *words):
    assert export_command.main(["--run", str(run), "--out", str(out), "--size", "32", "32", *words]) == 0
    return out


@pytest.fixture(scope="module")
def folder(make_acting, tmp_path_factory):
    return exported(make_acting(0), tmp_path_factory.mktemp("artifacts") / "float32", "--dtype", "float32")


@pytest.fixture(scope="module")
def loaded(folder):
    return policy.load(folder)


@pytest.fixture(scope="module")
def query():
    rng = np.random.default_rng(3)
    state = rng.uniform(-1, 1, (3, 4)).astype(np.float32)
    said = tuple(metaworld_tasks.find("drawer-open").phrasings[:3])
    frames = rng.integers(0, 256, (3, 2, 32, 32, 3), np.uint8)
    return simulator.Query(frames, state, said, np.arange(3), np.zeros(3, int))


def test_it_acts_as_the_student_does_in_the_simulator(make_acting, loaded, query):
    student = control.load(runs.load([make_acting(0)])[0], rows=3, effort=actor.Effort(halting=True))
    assert artifact_actor.ArtifactActor(loaded)(query) == pytest.approx(student(query), abs=1e-5)


def test_actions_come_by_part_in_the_embodiments_order(loaded, query):
    acting = artifact_actor.ArtifactActor(loaded)
    decision = loaded.act(acting.see(query))
    assert {name: part.shape for name, part in decision.actions.items()} == {"delta": (3, 8, 3), "gripper": (3, 8, 1)}
    assert np.array_equal(np.concatenate(list(decision.actions.values()), axis=-1), acting(query))


def test_instruction_state_and_views_reach_the_actions(loaded, query):
    acting = artifact_actor.ArtifactActor(loaded)
    seen = acting.see(query)
    base = acting(query)
    others = (
        artifact_actor.Seen(seen.video, seen.state, seen.instruction[::-1]),
        artifact_actor.Seen(seen.video, seen.state + np.float32(0.3), seen.instruction),
        artifact_actor.Seen(seen.video[:, :, ::-1].copy(), seen.state, seen.instruction),
    )
    for other in others:
        changed = np.concatenate(list(loaded.act(other).actions.values()), axis=-1)
        assert np.abs(changed - base).max() > 1e-5


def test_less_budget_buys_fewer_steps_and_none_is_overspent(loaded, query):
    seen = artifact_actor.ArtifactActor(loaded).see(query)
    for share in (0.0, 0.5):
        decision = loaded.act(seen, atp=share * loaded.meta["atp"]["full"])
        assert (decision.atp <= share * loaded.meta["atp"]["full"]).all()
        if not share:
            assert all((steps == 0).all() for steps in decision.steps.values())
            assert {loaded.meta["reasons"][str(code)] for code in decision.reason["control"]} <= {"budget", "feasible"}


def test_meta_and_card_say_what_it_is(folder, robots):
    meta, card = json.loads((folder / "meta.json").read_text()), (folder / "README.md").read_text()
    assert meta["views"] == ["side", "top"]
    assert meta["state"] == {"hand": 3, "gripper": 1}
    assert meta["actions"] == {"delta": 3, "gripper": 1}
    assert (meta["horizon"], meta["dtype"], meta["averaged"]) == (8, "float32", True)
    assert meta["run"]["step"] == 1
    assert meta["run"]["seed"] == 0
    assert meta["parity"]["outputs"]["actions"]["max_abs"] <= 1e-5
    for words in ("tiny-robot", "stand-in", "side, top", "hand [3]", "actions['delta']", f"{meta['parameters']:,}"):
        assert words in card
    assert "ms" not in card.split("## Compute")[1].split("## ")[0]  # nothing was timed, so nothing is told


def test_a_robots_artifact_acts_alike_with_and_without_features(make_acting, folder, loaded, query, tmp_path):
    out = exported(make_acting(0), tmp_path / "it", "--dtype", "float32", "--platforms", "cpu", "--features", "yes")
    telling = policy.load(out)
    said, alone = (one.act(artifact_actor.ArtifactActor(one).see(query)) for one in (telling, loaded))
    assert set(said.features) >= {"image_tokens", "vision_attention", "adapted_features"}
    assert alone.features == {}
    for name, part in alone.actions.items():
        assert said.actions[name] == pytest.approx(part, abs=1e-5)
    base = [one.meta["atp"]["base"]["vision"] for one in (loaded, telling)]
    assert base[0] < base[1], "reading the features is not paid for where they are not read"
    assert "`features[name]`" in (out / "README.md").read_text()
    assert "`features[name]`" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_smaller_types_are_smaller_and_close(make_acting, folder, tmp_path, dtype, capsys):
    out = exported(make_acting(0), tmp_path / "it", "--dtype", dtype)
    meta = json.loads((out / "meta.json").read_text())
    weights = safetensors.numpy.load_file(out / "weights.safetensors")
    kind = weights["vision.stem.0.attention.qkv.kernel"].dtype
    assert str(kind) == dtype
    sizes = [(one / "weights.safetensors").stat().st_size for one in (out, folder)]
    assert sizes[0] < 0.8 * sizes[1]
    assert meta["parameters"] == json.loads((folder / "meta.json").read_text())["parameters"]
    worst = min(entry["cosine"] for entry in meta["parity"]["outputs"].values())
    assert worst >= (0.9999 if dtype == "bfloat16" else 0.99)
    assert f"{dtype}={out}" in capsys.readouterr().out


def test_an_orchestrated_student_is_exported_with_its_saliency(make_orchestrated, tmp_path, query):
    out = exported(
        make_orchestrated(0), tmp_path / "sage", "--dtype", "float32", "--platforms", "cpu", "--features", "yes"
    )
    meta = json.loads((out / "meta.json").read_text())
    assert meta["parity"]["agreed"] == 1.0
    assert max(entry["max_abs"] for entry in meta["parity"]["outputs"].values()) <= 1e-5
    student = policy.load(out)
    decision = student.act(artifact_actor.ArtifactActor(student).see(query))
    assert decision.features["saliency"].sum((1, 2)) == pytest.approx(np.ones(3), abs=1e-4)


def test_a_bare_process_runs_the_cards_own_code_with_the_files_that_the_card_names(folder, loaded, query, tmp_path):
    told = (folder / "README.md").read_text().split("## Run")[1].split("\n## ")[0]
    for name in re.findall(r"`(\w+\.py)`", told):
        shutil.copy(POLICY.with_name(name), tmp_path)
    code = re.search(r"```python\n(.*?)```", told, re.DOTALL)[1]
    assert "this/folder" in code
    seen = artifact_actor.ArtifactActor(loaded).see(query)
    np.savez(tmp_path / "seen.npz", **vars(seen))
    script = f"""
import sys, types
blocked = {(*OURS, *FOREIGN)!r}
sys.modules.update(dict.fromkeys(blocked))
{code.replace("this/folder", str(folder))}
with np.load("seen.npz") as given:
    seen = types.SimpleNamespace(**{{name: given[name] for name in given}})
seen.instruction = seen.instruction.tolist()
np.savez("said.npz", **policy.load({str(folder)!r}).act(seen).actions)
assert not [name for name in sys.modules if name.partition(".")[0] in blocked and sys.modules[name] is not None]
"""
    (tmp_path / "bare.py").write_text(script)
    ran = subprocess.run([sys.executable, "bare.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert all(f"'{part}': array(" in ran.stdout for part in loaded.meta["actions"])
    with np.load(tmp_path / "said.npz") as said:
        for name, part in loaded.act(seen).actions.items():
            assert said[name] == pytest.approx(part, abs=1e-5)


def test_an_artifact_that_is_not_its_student_is_a_warning_and_exit_1(make_acting, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(parity.BARS, "float32", ("max_abs", -1.0, "lower"))
    words = ["--run", make_acting(0), "--out", tmp_path / "it", "--size", 32, 32, "--dtype", "float32"]
    assert export_command.main(list(map(str, words))) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert len(told) == 1
    assert "max_abs" in told[0]
    assert (tmp_path / "it" / "README.md").exists()


def refused(capsys, *words):
    assert export_command.main(list(map(str, words))) == 2
    return capsys.readouterr().err


def test_what_cannot_be_exported_is_an_error_with_the_fix(make_acting, tmp_path, capsys):
    assert "--size HEIGHT WIDTH" in refused(capsys, "--run", make_acting(0), "--out", tmp_path / "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("dear diary")
    told = refused(capsys, "--run", make_acting(0), "--out", tmp_path / "notes", "--size", 32, 32)
    assert "another --out" in told
    assert (tmp_path / "notes" / "mine.txt").read_text() == "dear diary"
    assert "holds no run" in refused(capsys, "--run", tmp_path, "--out", tmp_path / "d")
