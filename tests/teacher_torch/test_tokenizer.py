"""GR00T's ids from a package, from files, and renumbered for a stand-in."""

import json
import pathlib

import pytest

from teacher_torch.groot import inputs, tokenizer

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "golden" / "groot_n15" / "tokenizer"
TEXTS = (
    "Solve ARC task 00d62c1b",
    "  don't\n\n\tstop  12345 naïve cafe\u0301 日本語 🤖",
    "<think></think><|im_end|>x<IMG_CONTEXT></img><image 1>",
)
CASES = ("v1_224", "v2_224", "t1_900", "v1_256x320", "b2pad")


@pytest.mark.parametrize("name", CASES)
def test_decoded_ids_are_the_official_prompt(name, golden_case):
    case = golden_case(f"tiny_{name}")
    coder = tokenizer.packaged()
    for ids, text in zip(case["input_ids"].tolist(), case["prompt"], strict=True):
        assert coder.decode(ids) == str(text)
        assert coder.encode(str(text)) == ids


def test_special_ids():
    assert tokenizer.packaged().pad_id == 151643
    assert tokenizer.packaged().image_id == 151669
    assert tokenizer.packaged().encode("</interval>") == [151679]


def test_accents_are_composed_first():
    assert tokenizer.packaged().encode("cafe\u0301") == tokenizer.packaged().encode("caf\u00e9")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the official tokenizer files (../shared) are not on this machine")
def test_files_and_package_agree():
    official = tokenizer.load(SHARED)
    assert dict(zip(tokenizer.ADDED, range(151643, 151680), strict=True)) == json.loads(
        (SHARED / "added_tokens.json").read_text()
    )
    for text in TEXTS:
        assert official.encode(text) == tokenizer.packaged().encode(text)


def small_files(folder: pathlib.Path, added: dict[str, int]) -> pathlib.Path:
    """A toy byte-level vocabulary; Ġ is a space."""
    (folder / "vocab.json").write_text(json.dumps({"g": 0, "o": 1, "Ġ": 2, "go": 3, "Ġgo": 4}))
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


def test_vocabulary_files_are_read(tmp_path):
    coder = tokenizer.load(small_files(tmp_path, {"<|endoftext|>": 5, "<IMG_CONTEXT>": 6}))
    assert coder.encode("go go<IMG_CONTEXT>") == [3, 4, 6]
    assert coder.decode([3, 4, 6]) == "go go<IMG_CONTEXT>"


def test_plain_qwen_tokenizer_is_refused(tmp_path):
    with pytest.raises(tokenizer.TokenizerError, match=r"IMG_CONTEXT.*eagle2"):
        tokenizer.load(small_files(tmp_path, {"<|endoftext|>": 5}))


def test_folder_without_tokenizer_names_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocab.json and added_tokens.json missing.*packaged"):
        tokenizer.load(tmp_path)


def test_path_that_is_no_folder():
    with pytest.raises(FileNotFoundError, match=r"\./nowhere.*check the path"):
        tokenizer.load("./nowhere")


@pytest.fixture
def renumbered() -> tokenizer.Renumbered:
    base = tokenizer.packaged()
    ids = base.encode(inputs.prompt("go", [1], 1))
    return tokenizer.Renumbered(base, sorted({*ids, base.pad_id, base.image_id}))


def test_renumbered_ids_are_dense_and_decode(renumbered):
    text = inputs.prompt("go", [2], 3)
    ids = renumbered.encode(text)
    assert max(ids) < len(renumbered.table)
    assert renumbered.decode(ids) == text
    assert ids.count(renumbered.image_id) == 6


def test_renumbered_survives_the_disk(renumbered, tmp_path):
    renumbered.save(tmp_path)
    read = tokenizer.load(tmp_path)
    assert read.table == renumbered.table
    assert read.encode("go") == renumbered.encode("go")


def test_text_outside_a_renumbered_vocabulary(renumbered):
    with pytest.raises(tokenizer.TokenizerError, match=r"lacks \['stop'\].*trained with"):
        renumbered.encode("stop")


@pytest.mark.parametrize(("table", "message"), [([1, 1], "repeat"), ([1, 2], "pad_id and image_id")])
def test_bad_table(table, message):
    with pytest.raises(tokenizer.TokenizerError, match=message):
        tokenizer.Renumbered(tokenizer.packaged(), table)
