"""A student exported, reloaded where flax and torch cannot be imported, and compared with itself."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from eval import artifact, export, policy, products, scoring
from student_jax import config, presets
from student_jax.student import Student

SIDE = 64
KIT = artifact.Kit((1, 1, SIDE, SIDE, 3))
TEACHER = {"id": "toy", "provenance": "random", "licence": "none", "digest": "0" * 64}
ABOUT = artifact.About("tiny", True, "arc", {"seed": 0}, TEACHER)


def make_student(**changes):
    student = Student(presets.make("tiny", config.Target(width=8, grid=4)), rngs=nnx.Rngs(0))
    student.vision.mean[...] = jnp.arange(8.0)
    return student


@pytest.fixture(scope="module")
def student():
    return make_student()


@pytest.fixture(scope="module")
def folder(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    export.write(folder, student, ABOUT, KIT)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return policy.load(folder)


def video(batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, 1, 1, SIDE, SIDE, 3), dtype=np.uint8)


def test_reloaded_without_flax_and_torch_it_says_the_same(student, folder, tmp_path):
    np.save(tmp_path / "video.npy", video())
    script = f"""
import sys
for name in ("flax", "torch", "optax", "orbax", "student_jax", "train", "bridge", "transformers"):
    sys.modules[name] = None
import numpy as np
from eval import policy
decision = policy.load({str(folder)!r}).act(np.load({str(tmp_path / "video.npy")!r}))
np.savez({str(tmp_path / "out.npz")!r}, energy=decision.energy["vision"], steps=decision.steps["vision"],
         confidence=decision.confidence, atp=decision.atp, **decision.features)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    plenty = jnp.full(2, 1e9)
    want = jax.jit(student)(scoring.inputs(video()), plenty, jnp.ones((2, 1)), jax.random.key(0))
    with np.load(tmp_path / "out.npz") as got:
        for name, array in want.features.items():
            assert got[name] == pytest.approx(np.asarray(array), abs=1e-5)
        assert got["energy"] == pytest.approx(np.asarray(want.energies["vision"]), abs=1e-5)
        assert got["steps"].tolist() == want.steps["vision"].tolist()
        assert got["atp"] == pytest.approx(np.asarray(want.atp))


def test_any_batch_size(loaded):
    both, one = loaded.act(video()), loaded.act(video(1))
    assert both.features["image_tokens"].shape == (2, 1, 16, 8)
    assert one.features["image_tokens"][0] == pytest.approx(both.features["image_tokens"][0], abs=1e-5)


def test_an_object_with_a_video_will_do(loaded):
    @dataclasses.dataclass
    class Observation:
        video: np.ndarray

    assert np.array_equal(loaded.act(Observation(video())).confidence, loaded.act(video()).confidence)


def test_a_budget_below_one_step_takes_none_and_costs_none(loaded):
    step = loaded.meta["atp"]["step"]["vision"]
    decision = loaded.act(video(), atp=[0.0, 0.9 * step])
    assert decision.steps["vision"].tolist() == [0, 0]
    assert decision.atp.tolist() == [0.0, 0.0]
    assert np.isfinite(decision.features["image_tokens"]).all()


def test_the_full_budget_pays_for_every_step(loaded):
    full, step = loaded.meta["atp"]["full"], loaded.meta["atp"]["step"]["vision"]
    assert full // step == loaded.meta["atp"]["max_steps"]["vision"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (video().astype(np.float32), "uint8"),
        (video()[0], r"\[b, t, v, h, w, 3\]"),
        (video()[:, :, :, :32], "export for this size"),
        (video()[:0], r"\[0, 1, 1, 64, 64, 3\]"),
    ],
)
def test_a_video_that_does_not_fit_is_named(loaded, bad, words):
    with pytest.raises(policy.InputError, match=words):
        loaded.act(bad)


@pytest.mark.parametrize("atp", [-1.0, float("nan"), [1.0, 2.0, 3.0]])
def test_a_bad_budget_is_named(loaded, atp):
    with pytest.raises(policy.InputError, match="atp"):
        loaded.act(video(), atp=atp)


@pytest.mark.parametrize("trust", [2.0, [-0.1], [0.5, 0.5]])
def test_bad_trust_is_named(loaded, trust):
    with pytest.raises(policy.InputError, match="vision"):
        loaded.act(video(), trust=trust)


def test_meta_says_what_it_is(folder, student):
    meta = json.loads((folder / "meta.json").read_text())
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    assert meta["parameters"] == sum(leaf.size for leaf in weights.values())
    assert meta["digest"] == artifact.digest(weights)
    assert meta["teacher"]["licence"] == "none"
    assert meta["averaged"]
    assert config.from_dict(meta["student"]) == student.config


def test_the_table_agrees_with_the_products_of_the_program(student):
    student = student.folded()
    weights, call = export.split(student)
    traced = jax.make_jaxpr(call)(weights, export.given_shapes(student, KIT, batch=1))
    entry = student.table(scoring.inputs(jnp.asarray(video(1))))["vision"]
    # The program reads its output twice (tokens, attention), which the compiler merges; resizing is no product.
    counted = products.flops(traced)
    assert counted == pytest.approx(entry.init + entry.step + entry.output, rel=0.25)


def test_foreign_weights_are_refused(folder, tmp_path):
    for name in ("program", "meta.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    weights["vision.error_scale"] = np.zeros(9, np.float32)
    safetensors.numpy.save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(policy.ArtifactError, match=r"weights\.safetensors is not the file"):
        policy.load(tmp_path)


def test_a_missing_file_and_a_foreign_format_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meta\.json"):
        policy.load(tmp_path)
    for name in ("program", "weights.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "meta.json").write_text('{"format": 99}')
    with pytest.raises(policy.ArtifactError, match="99"):
        policy.load(tmp_path)


def test_an_unknown_runtime_lists_the_known(folder):
    with pytest.raises(policy.ArtifactError, match="xla"):
        policy.load(folder, runtime="tensorrt")


def test_a_student_of_grids_is_refused(tmp_path):
    solver = Student(presets.puzzles("tiny", cells=4), rngs=nnx.Rngs(0))
    with pytest.raises(export.ExportError, match="solves grids"):
        export.write(tmp_path / "it", solver, ABOUT, KIT)
    assert not (tmp_path / "it").exists()


def test_a_student_that_would_say_nothing_is_refused(student, tmp_path):
    with pytest.raises(export.ExportError, match="says nothing without features"):
        export.write(tmp_path / "it", student, ABOUT, dataclasses.replace(KIT, features=False))


def test_the_basis_is_folded_into_the_weights(folder, student):
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    assert "vision.basis" not in weights
    assert sum(leaf.size for leaf in weights.values()) < sum(leaf.size for leaf in export.split(student)[0].values())


def test_export_is_reproducible(student, folder, tmp_path):
    export.write(tmp_path, make_student(), ABOUT, KIT)
    for name in ("weights.safetensors", "meta.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
