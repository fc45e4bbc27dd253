"""The loader: tokens as in training, inputs and files that do not fit named with the fix, instructions remembered."""

import hashlib
import json
import shutil
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from eval import artifact, export, policy
from student_jax import config, presets, sizes
from student_jax.student import Student
from train import words

LENGTH = 12
SENTENCES = ["open the drawer", "close the drawer", "push the red puck to the goal", "turn the faucet on"] * 3
HARD = [
    "Open the DRAWER.",
    "  open\tthe\n drawer ",
    "öffne die Schublade",
    "a_b-c",
    "",
    "<pad>",
    "ＡＢＣ",
    "🙂",
    "a.b, c!",
]

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def lexicon():
    return words.train(SENTENCES, 300)


@pytest.fixture(scope="module")
def folder(lexicon, tmp_path_factory):
    robot = config.Robot(sizes.ActionSpace(horizon=4, width=3, state=2))
    settings = presets.make("tiny", config.Target(width=8, grid=4), task="robot", robot=robot)
    folder = tmp_path_factory.mktemp("artifacts") / "tiny"
    teacher = {"id": "t", "provenance": "random", "licence": "none", "digest": "d"}
    about = artifact.About("tiny", True, "arm", {}, teacher)
    kit = artifact.Kit((1, 2, 32, 32, 3), body(), lexicon.to_json())
    export.write(folder, Student(settings, rngs=nnx.Rngs(0)), about, kit, platforms=("cpu",))
    return folder


def body():
    from bridge import embodiment, transform

    rng = np.random.default_rng(0)
    modes = {"state.joint": "min_max", "action.joint": "q99", "action.grip": "none"}
    return embodiment.from_data(
        "arm",
        state={"joint": rng.normal(size=(9, 2))},
        action={"joint": rng.normal(size=(9, 2)), "grip": rng.uniform(size=(9, 1))},
        video={"front": {}, "wrist": {}},
        transform=transform.Transform(("front", "wrist"), None, None, 1, modes, 0, 4, "plain"),
    )


@pytest.fixture(scope="module")
def loaded(folder):
    return policy.load(folder)


def seen(batch=2, **changes):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (batch, 1, 2, 32, 32, 3), dtype=np.uint8)
    base = {"video": video, "state": np.zeros((batch, 1, 2), np.float32), "instruction": ["open the drawer"] * batch}
    return types.SimpleNamespace(**base | changes)


def test_tokens_are_those_of_training(lexicon, loaded):
    texts = [*SENTENCES[:4], *HARD]
    for one, other in zip(
        policy.Words(lexicon.to_json(), 64)(texts, len(texts)), lexicon.encode(texts, 64), strict=True
    ):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    given, (tokens, mask) = loaded.given(seen()), lexicon.encode(seen().instruction, LENGTH)
    assert np.array_equal(given["tokens"], tokens)
    assert np.array_equal(given["token_mask"], mask)


def test_an_instruction_is_tokenized_once_and_not_for_ever(lexicon):
    remembered = policy.Words(lexicon.to_json(), LENGTH)
    asked = []
    encode = remembered._tokenizer.encode
    remembered._tokenizer = types.SimpleNamespace(encode=lambda text: asked.append(text) or encode(text))
    for _ in range(3):
        remembered(["open the drawer", "close the drawer"], 2)
    assert asked == ["open the drawer", "close the drawer"]
    for index in range(policy.REMEMBERED + 5):
        remembered(["open the drawer", f"a {index}"], 2)
    assert asked.count("open the drawer") == 1  # used all the time, so never the one forgotten
    assert len(remembered._known) == policy.REMEMBERED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": np.zeros((2, 1, 2))}, "state: expected float32"),
        ({"state": np.zeros((2, 2), np.float32)}, r"joint \[2\] in physical units"),
        ({"state": np.array([[[0, 0]], [[0, np.nan]]], np.float32)}, "nan in row 1, column 1"),
        ({"state": np.array([[[0, 0]], [[np.inf, 0]]], np.float32)}, "not finite"),
        ({"state": None}, "this student needs it"),
        ({"instruction": ["open the drawer"]}, "expected 2 strings"),
        ({"instruction": "open the drawer"}, "expected 2 strings"),
        ({"instruction": ["x" * 40, "a"]}, "the limit is 12"),
        ({"instruction": ["x" * 769, "a"]}, "769 characters, too long"),
        ({"instruction": ["\ud800", "a"]}, "expected text"),
        ({"instruction": [3, "a"]}, "expected text"),
        ({"instruction": None}, "instruction: this student needs it"),
        ({"video": np.zeros((2, 1, 1, 32, 32, 3), np.uint8)}, "views front, wrist"),
    ],
)
def test_an_input_that_does_not_fit_is_named(loaded, changes, words):
    with pytest.raises(policy.InputError, match=words):
        loaded.act(seen(**changes))


@pytest.mark.parametrize("said", ["x" * 10**6, ["x" * 10**6, "a"], ["x" * 700, "a"], ["\ud800" * 700, "a"]])
def test_a_long_instruction_is_neither_encoded_nor_told_whole(lexicon, said):
    words = policy.Words(lexicon.to_json(), LENGTH)
    encode, asked = words._tokenizer.encode, []
    words._tokenizer = types.SimpleNamespace(encode=lambda text: asked.append(text) or encode(text))
    with pytest.raises(policy.InputError, match="instruction") as error:
        words(tuple(said) if isinstance(said, list) else said, 2)
    assert len(str(error.value)) < 250
    assert all(len(text) <= policy.LETTERS * LENGTH for text in asked if isinstance(text, str))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_named(loaded, seed):
    with pytest.raises(policy.InputError, match="seed"):
        loaded.act(seen(), seed=seed)


def test_a_row_does_not_depend_on_the_others(loaded):
    both, one = loaded.act(seen()), loaded.act(seen(1, video=seen().video[1:]))
    for name, part in one.actions.items():
        assert part[0] == pytest.approx(both.actions[name][1], abs=1e-5)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change(folder, **fields):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | fields))


@pytest.mark.parametrize("name", ["program", "weights.safetensors"])
def test_a_file_cut_off_or_changed_is_named(copied, name):
    content = (copied / name).read_bytes()
    for bad in (content[:-7], content[:-1] + bytes([content[-1] ^ 1])):
        (copied / name).write_bytes(bad)
        with pytest.raises(policy.ArtifactError, match=f"{name} is not the file"):
            policy.load(copied)
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        policy.load(copied)


def test_a_program_that_this_jax_cannot_read_names_the_version(folder, copied):
    (copied / "program").write_bytes(b"of another time")
    files = policy.read_meta(folder)["files"] | {"program": hashlib.sha256(b"of another time").hexdigest()}
    change(copied, files=files, versions={"jax": "0.99"})
    with pytest.raises(policy.ArtifactError, match=r"exported with jax 0\.99"):
        policy.load(copied)


def test_another_platform_is_named(copied):
    change(copied, platforms=["cuda", "tpu"])
    with pytest.raises(policy.ArtifactError, match="exported for cuda, tpu, jax runs on cpu"):
        policy.load(copied)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 2}', '{"format": 2, "files": []}'])
def test_a_meta_that_is_none_is_named(copied, text):
    (copied / "meta.json").write_text(text)
    with pytest.raises(policy.ArtifactError, match=r"meta\.json"):
        policy.load(copied)


@pytest.mark.parametrize("name", ["../other", "/etc/hostname", "a\\b"])
def test_a_file_outside_the_folder_is_refused(copied, name):
    (copied.parent / "other").write_text("")
    files = policy.read_meta(copied)["files"]
    change(copied, files=files | {name: hashlib.sha256(b"").hexdigest()})
    with pytest.raises(policy.ArtifactError, match="no file of this folder"):
        policy.load(copied)


@pytest.mark.parametrize("name", ["program", "weights.safetensors"])
def test_a_meta_without_a_file_that_is_needed_is_refused(copied, name):
    files = policy.read_meta(copied)["files"]
    del files[name]
    change(copied, files=files)
    with pytest.raises(policy.ArtifactError, match=r"meta\.json"):
        policy.load(copied)


def test_the_program_has_no_weights_in_it(folder):
    sizes = {name: (folder / name).stat().st_size for name in ("program", "weights.safetensors")}
    weights = jax.tree.leaves(safetensors.numpy.load_file(folder / "weights.safetensors"))
    assert sizes["weights.safetensors"] >= sum(leaf.nbytes for leaf in weights)
    program = jax.export.deserialize(bytearray((folder / "program").read_bytes()))
    assert max(len(line) for line in str(program.mlir_module()).splitlines() if "stablehlo.constant" in line) < 20_000
