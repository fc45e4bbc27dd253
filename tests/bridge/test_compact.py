"""A compact store gives back the exact one's tokens, says what was done, and notices damage."""

import dataclasses
import pathlib

import ml_dtypes
import numpy as np
import pytest

from bridge import coding, commits, compact, compact_error, compaction, shards, store, summary, validate
from bridge import manifest as manifests
from bridge.compaction import Choices
from bridge.manifest import Feature, StoreError


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def exact(tmp_path, manifest, arrays, altered_manifest) -> pathlib.Path:
    """A finished store that also has a vector per prompt position, which no stage reads; image tokens of two
    channels."""
    features = manifest.features | {"backbone_features": Feature((8,), "bfloat16", "token")}
    features |= {"image_tokens": Feature((2,), "bfloat16", "image")}
    made, rng = altered_manifest(features=features), np.random.default_rng(0)
    writer = store.create(tmp_path / "exact", made)
    for group in writer.pending():
        tokens = rng.standard_normal((made.rows(group)["token"], 8), np.float32).astype(ml_dtypes.bfloat16)
        image = arrays[group]["image_tokens"][:, :2]
        writer.write(group, arrays[group] | {"backbone_features": tokens, "image_tokens": image})
    return tmp_path / "exact"


@pytest.fixture
def convert(exact, tmp_path):
    """(options...) -> exit code of a conversion that keeps all components."""
    return lambda *options, out="compact": compact.main(
        [str(exact), "--out", str(tmp_path / out), "--variance", "1", *options]
    )


def test_tokens_come_back_in_the_teachers_basis(exact, convert, tmp_path):
    assert convert() == 0
    one, other = store.open(exact), store.open(tmp_path / "compact")
    for record in range(5):
        found, wanted = (each.record("image_tokens", record) for each in (other, one))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted.astype(np.float32), atol=0.06)
        np.testing.assert_allclose(
            other.record("vision_attention", record), one.record("vision_attention", record), rtol=1e-3
        )
        np.testing.assert_array_equal(other.record("cells", record), one.record("cells", record))


def test_frames_of_a_split_are_found_on_the_block_axis(exact, convert, tmp_path):
    assert convert() == 0
    other = store.open(tmp_path / "compact")
    rows, starts = other.frames("validation", "block")
    assert other.tokens("block") == 1
    read = other.read("image_tokens", starts, 1)
    assert read.shape == (len(rows), 4, 2)
    whole = np.concatenate([other.record("image_tokens", r) for r in (2, 3)])
    np.testing.assert_allclose(read.reshape(-1, 2), whole, atol=1e-6)
    assert other.read("image_tokens", starts, 1, stored=True).dtype == np.int8
    with pytest.raises(StoreError, match=r"image_tokens are coded here.*exact store"):
        other.exact("cells", "image_tokens")


def test_the_manifest_says_what_was_done(exact, convert, tmp_path):
    assert convert() == 0
    made, source = store.open(tmp_path / "compact").manifest, store.open(exact).manifest
    said = made.extraction["compact"]
    assert said["source"] == source.digest
    assert made.teacher == source.teacher
    assert said["features"]["vision_attention"] == {"dtype": "float16"}
    tokens = said["features"]["image_tokens"]
    assert (tokens["dtype"], tokens["block"], tokens["width"]) == ("int8", [2, 2], 2)
    assert tokens["components"] == 8
    assert said["dropped"] == ["backbone_features"]
    assert "backbone_features" not in made.features
    assert "PHI-S" in tokens["transform"]


def test_a_store_of_an_earlier_coding_is_refused(convert, tmp_path):
    assert convert() == 0
    path = tmp_path / "compact/manifest.json"
    path.write_text(path.read_text().replace('"block": [', '"pool": ['))
    with pytest.raises(StoreError, match="image_tokens is coded as an earlier version did; make the store again"):
        store.open(tmp_path / "compact")


def test_it_is_valid_and_damage_is_found(convert, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(summary, "draw", lambda *_: None)
    assert convert() == 0
    folder = tmp_path / "compact"
    assert validate.main([str(folder)]) == 0
    assert "compact, made from the exact store" in capsys.readouterr().out
    (basis,) = folder.glob("codings/image_tokens-*.npy")
    held = bytearray(basis.read_bytes())
    held[-3] ^= 1
    basis.write_bytes(held)
    assert validate.main([str(folder)]) == 1
    assert "missing or changed, so image_tokens cannot be read" in capsys.readouterr().out


def test_a_scale_of_zero_and_a_false_account_are_faults(convert, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(summary, "draw", lambda *_: None)
    encode = coding.Coding.encode

    def without_scale(one, tokens):
        codes, scale = encode(one, tokens)
        return codes, np.where(np.arange(len(scale)) == 0, 0, scale).astype(np.float16)

    monkeypatch.setattr(coding.Coding, "encode", without_scale)
    assert convert() == 0
    assert validate.main([str(tmp_path / "compact")]) == 1
    assert "image_tokens.scale: 1 scales are not above 0" in capsys.readouterr().out
    path = tmp_path / "compact/manifest.json"
    path.write_text(path.read_text().replace('"components": 8', '"components": 1', 1))
    assert validate.main([str(tmp_path / "compact")]) == 1
    assert "is said to be ('int8', (1,)), but is not" in capsys.readouterr().out


def test_interrupted_it_goes_on_to_the_same_bytes(convert, tmp_path, monkeypatch):
    assert convert(out="whole") == 0
    text, calls = commits.text, []

    def failing(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return text(*given)

    monkeypatch.setattr(commits, "text", failing)
    assert convert() == compact.INTERRUPTED
    assert convert() == 0
    assert files_of(tmp_path / "compact") == files_of(tmp_path / "whole")


def test_what_was_begun_goes_on_with_its_own_codings_and_an_exact_store_is_left_alone(
    exact, convert, tmp_path, monkeypatch, capsys
):
    assert convert() == 0
    before = files_of(tmp_path / "compact")
    next((tmp_path / "compact").rglob(commits.key(0))).unlink()
    monkeypatch.setattr(compact, "_fit", lambda *given: pytest.fail("fitted again: another machine's would differ"))
    assert convert() == 0
    assert files_of(tmp_path / "compact") == before
    monkeypatch.undo()
    kept = files_of(exact)
    assert compact.main([str(exact), "--out", str(exact)]) == 2
    assert "another extraction" in capsys.readouterr().err
    assert files_of(exact) == kept


def test_like_another_it_uses_that_ones_bases(exact, convert, tmp_path, capsys):
    assert convert("--components", "3", out="first") == 0
    assert convert("--like", str(tmp_path / "first"), out="second") == 0
    assert convert(out="third") == 0
    first, second, third = (store.open(tmp_path / name).manifest for name in ("first", "second", "third"))
    assert compaction.same(first, second)
    assert not compaction.same(first, third)
    assert not compaction.same(first, store.open(exact).manifest)
    assert compact.main([str(exact), "--out", str(tmp_path / "x"), "--like", str(exact)]) == 2
    assert "--like: does not code image_tokens" in capsys.readouterr().err


def test_prompts_are_kept_as_they_are_where_they_are_asked_for(exact, convert, tmp_path):
    assert convert("--drop") == 0
    one, other = (store.open(place) for place in (exact, tmp_path / "compact"))
    assert other.manifest.features["backbone_features"] == one.manifest.features["backbone_features"]
    np.testing.assert_array_equal(other.record("backbone_features", 2), one.record("backbone_features", 2))


def test_bases_of_other_tiles_are_refused(exact, convert, tmp_path, monkeypatch, capsys):
    assert convert(out="first") == 0
    load = compaction.load

    def of_larger_tiles(files, held):
        return {name: dataclasses.replace(one, grid=2 * one.grid) for name, one in load(files, held).items()}

    monkeypatch.setattr(compaction, "load", of_larger_tiles)
    assert convert("--like", str(tmp_path / "first"), out="second") == 2
    assert "--like: codes tiles of 4 tokens a side, this store's have 2" in capsys.readouterr().err


def test_what_cannot_be_done_is_said(exact, convert, tmp_path, capsys):
    assert convert() == 0
    for given, message in (
        (["--out", str(tmp_path / "again")], "is compact already"),
        (["--components", "0", "--out", "x"], "--components: expected 1 or more"),
    ):
        assert compact.main([str(tmp_path / "compact"), *given]) == 2
        assert message in capsys.readouterr().err
    assert convert("--drop", "nothing", out="y") == 2
    assert "--drop nothing: no such features" in capsys.readouterr().err


def test_too_large_for_float16_is_refused(exact, manifest):
    source = store.open(exact).manifest
    arrays = {"vision_attention": np.full(source.rows(0)["image"], 1e6, np.float32)}
    choices = compaction.Choices(drop=("image_tokens", "backbone_features", "layer_convergence"))
    with pytest.raises(StoreError, match="vision_attention is not finite in float16"):
        compaction.encode(source, arrays, {}, choices)


def test_one_of_several_that_create_a_file_at_once_wins(tmp_path):
    files = shards.connect(tmp_path)
    assert shards.create(files, "manifest.json", b"first") == b"first"
    assert shards.create(files, "manifest.json", b"second") == b"first"
    assert files_of(tmp_path) == {"manifest.json": b"first"}


def test_a_tile_of_the_real_teachers_sizes_stays_below_100_kb(altered_manifest):
    """With every feature that is extracted of ARC by default; 300 prompt positions."""
    tokens = {name: Feature((2048,), "bfloat16", axis) for name, axis in
              (("image_tokens", "image"), ("backbone_features", "token"))}  # fmt: skip
    made = altered_manifest()
    teacher = dataclasses.replace(made.teacher, grid=16, width=2048)
    counts = {"record": [1] * 5, "frame": [1] * 5, "image": [256] * 5, "token": [300] * 5}
    given = {"records": made.records, "extraction": {}, "group_records": 2}
    source = manifests.make("arc", teacher, features=made.features | tokens, counts=counts, **given)
    values = np.zeros((513, 4 * 2048), np.float32)
    held = compaction.derive(source, {"image_tokens": coding.Coding(values[0], values[1:], 1.0, 16)}, Choices())
    sizes = compact_error.record_bytes(held)
    assert sum(size for name, size in sizes.items() if name not in compact_error.OBSERVED) < 100_000
