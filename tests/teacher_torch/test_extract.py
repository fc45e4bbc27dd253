"""Extraction: exact values in the right rows, the same bytes however it was interrupted or shared, errors that help."""

import dataclasses
import pathlib

import ml_dtypes
import numpy as np
import pytest
import torch

from bridge import arc, batches, embodiment, shards, store, validate
from teacher_torch import (
    arc_inputs,
    arc_plan,
    arc_request,
    extract,
    extraction,
    groups,
    plan,
    provenance,
    request,
    standin,
    taps,
)
from teacher_torch.groot import checkpoint, inputs
from teacher_torch.groot import config as sizes
from teacher_torch.groot.model import Groot

FEW = ("--limit", "1", "--group", "4", "--batch-size", "2")


@pytest.fixture(scope="session")
def words():
    return standin.make_tokenizer()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, words) -> pathlib.Path:
    """A random teacher with four tokens a tile, in a folder with the stand-in's tokenizer."""
    folder = tmp_path_factory.mktemp("teachers") / "tiny"
    config = dataclasses.replace(
        standin.make_config(words),
        vision=sizes.VisionConfig(16, 32, 2, 2, patch_size=28, image_size=56),
        language=sizes.LanguageConfig(32, 64, 2, 2, 1, head_dim=16, vocab_size=len(words.table)),
        head=sizes.HeadConfig(
            hidden_size=16,
            input_embedding_dim=16,
            output_dim=16,
            future_tokens=2,
            max_positions=32,
            dit=sizes.TransformerConfig(2, 2, 8),
            adapter=sizes.TransformerConfig(1, 2, 16),
        ),
    )
    torch.manual_seed(0)
    checkpoint.save(Groot(config), folder)
    words.save(folder)
    provenance.write(folder, {"provenance": "random", "licence": "Apache-2.0"})
    return folder


@pytest.fixture
def run(teacher, tmp_path):
    """(options...) -> exit code of an extraction with the tiny teacher into tmp_path / "store"."""
    return lambda *options, out="store": extract.main(
        ["--teacher", str(teacher), "--device", "cpu", "--out", str(tmp_path / out), *FEW, *options]
    )


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("tiles", "padding"), [(1, "white"), (4, "white"), (12, "black")])
def test_cheap_inputs_equal_the_official_chain(teacher, words, tiles, padding):
    config = sizes.from_folder(teacher)
    preparer = arc_inputs.Preparer(config, words, max_tiles=tiles, padding=padding)
    for record in arc.records(arc.splits(1)["train"][3])[-2:]:
        expected = inputs.prepare(
            arc.observation(record, padding=padding),
            embodiment.arc(tiles),
            words,
            tile=config.tile,
            tokens_per_tile=config.tokens_per_tile,
            state_dim=config.head.state_dim,
        )
        found = preparer.prepare([record])
        for field in dataclasses.fields(expected):
            assert torch.equal(getattr(found, field.name), getattr(expected, field.name)), field.name


def test_lengths_are_those_of_the_prompt(words):
    """5,159 and 2,585 tokens at full tiles, 551 and 281 compact: known before anything runs."""
    for tokens, lengths in ((2560, (2592, 5159)), (256, (288, 551)), (64, (96, 167))):
        for frames, expected in zip((1, 2), lengths, strict=True):
            assert arc_plan.length(words, frames=frames, tokens_per_frame=tokens) == expected
            prompt = inputs.prompt(arc.INSTRUCTION, [1] * frames, tokens)
            assert len(words.encode(prompt)) == expected


def test_every_feature_is_what_the_taps_give(run, teacher, words, tmp_path):
    names = [*arc_plan.features(sizes.from_folder(teacher))]
    assert run("--features", *names, "--tiles", "4") == 0
    reader = store.open(tmp_path / "store")
    model = checkpoint.load(teacher, dtype=torch.float32)
    preparer = arc_inputs.Preparer(model.config, words, max_tiles=4, padding="white")
    records = [record for _, record in arc_plan.choose_records("arc1", ("train", "validation", "test"), 1)]
    assert reader.manifest.size == len(records)
    for index in (0, len(records) - 1):
        given = preparer.prepare([records[index]])
        for name, value in taps.collect(model, given, [name for name in names if name != "cells"]).items():
            stored = reader.record(name, index)
            expected = value.reshape(stored.shape).numpy()
            if stored.dtype == ml_dtypes.bfloat16:
                np.testing.assert_allclose(stored.astype(np.float32), expected, rtol=2**-8, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_allclose(stored, expected, rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.array_equal(reader.record("cells", index), records[index].cells)


def test_bfloat16_is_exact(run, teacher, words, tmp_path):
    assert run("--dtype", "bfloat16", "--batch-size", "1") == 0
    model = checkpoint.load(teacher, dtype=torch.bfloat16)
    record = arc.records(arc.splits(1)["train"][0])[0]
    given = arc_inputs.Preparer(model.config, words, max_tiles=1, padding="white").prepare([record])
    expected = taps.collect(model, given, ["backbone_features"])["backbone_features"][0]
    stored = store.open(tmp_path / "store").record("backbone_features", 0)
    assert stored.tobytes() == expected.view(torch.uint16).numpy().tobytes()


def test_store_passes_its_own_check(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(validate.summary, "draw", lambda *_: None)
    assert run("--features", "image_tokens", "vision_attention", "image_mask", "attention_mask") == 0
    assert validate.main([str(tmp_path / "store")]) == 0
    assert "no faults" in capsys.readouterr().out


def test_splits_and_kinds_of_the_records(run, tmp_path):
    assert run("--splits", "test", "train") == 0
    manifest = store.open(tmp_path / "store").manifest
    tasks = [arc.splits(1)[split][0] for split in ("train", "test")]
    assert list(dict.fromkeys(zip(manifest.records["task"], manifest.records["split"], strict=True))) == [
        (tasks[0].id, "train"),
        (tasks[1].id, "test"),
    ]
    assert manifest.records["kind"].count("query") == sum(len(task.test) for task in tasks)
    assert manifest.teacher.id == "tiny"
    assert manifest.teacher.provenance == "random"


def test_labels_do_not_reach_the_store(run, tmp_path, monkeypatch):
    assert run() == 0
    published = arc.splits(1)

    def blank(task):
        return dataclasses.replace(task, test=tuple(arc.Pair(p.input, np.zeros((1, 1), np.int8)) for p in task.test))

    blanked = {split: tuple(map(blank, tasks)) for split, tasks in published.items()}
    monkeypatch.setattr(arc, "splits", lambda version: blanked)
    assert run(out="blanked") == 0
    assert files_of(tmp_path / "blanked") == files_of(tmp_path / "store")


def test_interrupted_anywhere_gives_the_same_bytes(run, tmp_path, monkeypatch):
    """Between a group's arrays and its marker, and between two groups: what a kill leaves behind."""
    assert run(out="whole") == 0
    write = shards.write
    calls = []

    def failing(files, contents):
        calls.append(list(contents))
        if len(calls) in (4, 7):
            raise KeyboardInterrupt
        write(files, contents)

    monkeypatch.setattr(shards, "write", failing)
    assert run() == extract.INTERRUPTED
    assert calls[-1] == ["commits/00001.json"]
    (tmp_path / "store/image_tokens/c/2").mkdir()
    (tmp_path / "store/image_tokens/c/2/0_5a.__lock").write_bytes(b"half")
    assert run() == extract.INTERRUPTED
    assert run() == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_shards_write_one_store(run, tmp_path, capsys):
    assert run(out="whole") == 0
    assert run("--shard", "1/2") == 0
    assert "groups are left to other shards" in capsys.readouterr().out
    assert run("--shard", "0/2") == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_finished_store_is_left_alone(run, tmp_path, capsys, monkeypatch):
    assert run() == 0
    before = files_of(tmp_path / "store")
    monkeypatch.setattr(checkpoint, "load", None)
    assert run() == 0
    assert "complete" in capsys.readouterr().out
    assert files_of(tmp_path / "store") == before
    assert run("--no-resume") == 2
    assert "exists: leave out --no-resume" in capsys.readouterr().err


def test_memory_url(teacher):
    assert extract.main(["--teacher", str(teacher), "--out", "memory://extracted", "--device", "cpu", *FEW]) == 0
    assert len(store.open("memory://extracted").records("train"))


def test_batch_size_is_halved_until_it_fits_and_then_kept(run, tmp_path, monkeypatch, capsys):
    collect = taps.collect

    def small(most):
        def collecting(model, given, names):
            if len(given.input_ids) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return collect(model, given, names)

        return collecting

    monkeypatch.setattr(taps, "collect", small(1))
    assert run("--shard", "0/2", "--batch-size", "5") == 0
    assert store.open(tmp_path / "store", partial=True).manifest.extraction["batch_size"] == 1
    monkeypatch.setattr(taps, "collect", small(9))
    assert run("--batch-size", "5") == 0
    assert run(out="asked") == 0
    monkeypatch.setattr(taps, "collect", small(1))
    assert run("--batch-size", "1", out="asked") == 2
    assert "--batch-size 1, but" in capsys.readouterr().err
    (tmp_path / "asked/commits/00000.json").unlink()
    assert run(out="asked") == 2
    assert "out of memory with the store's batch size 2" in capsys.readouterr().err


def test_other_runtime_errors_are_not_taken_for_memory(teacher, words, monkeypatch):
    monkeypatch.setattr(taps, "collect", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    model = checkpoint.load(teacher, dtype=torch.float32)
    preparer = arc_inputs.Preparer(model.config, words, max_tiles=1, padding="white")
    source = arc_request.Source(preparer, arc_plan.choose_records("arc1", ["train"], 1))
    with pytest.raises(RuntimeError, match="a bug"):
        groups.fit_batch(model, source, [0, 1], {"image_tokens": arc_plan.features(model.config)["image_tokens"]})


def test_unplanned_length_stops(run, monkeypatch):
    monkeypatch.setattr(arc_plan, "TEMPLATE_TOKENS", 20)
    with pytest.raises(groups.LengthError, match="planned"):
        run()


def test_head_is_loaded_only_when_asked_for(run, monkeypatch):
    load, wanted = checkpoint.load, []

    def watched(folder, **options):
        wanted.append(options["features_only"])
        return load(folder, **options)

    monkeypatch.setattr(checkpoint, "load", watched)
    run(out="without")
    run("--features", "adapted_features", out="with")
    run("--features", "cells", out="none")
    assert wanted == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--features", "saliency"), "no such features for ARC: saliency; there are cells, image_tokens"),
        (("--splits", "dev"), "no such splits: dev; there are train, validation, test"),
        (("--shard", "2/2"), "expected i/n with 0 <= i < n"),
        (("--limit", "0"), "expected at least one task"),
        (("--teacher", "nowhere"), "no checkpoint folder nowhere"),
        (
            ("--teacher", "standin-robot"),
            "was trained for --task robot, not arc: name another --teacher, such as standin-arc",
        ),
        (("--tokenizer", "nowhere"), "or give --tokenizer packaged"),
        (("--out", "nothing://x"), "not a folder or a URL"),
    ],
)
def test_requests_that_cannot_be_met(run, capsys, options, message):
    assert run(*options) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


def test_different_options_need_another_folder(run, capsys):
    assert run() == 0
    assert run("--padding", "black") == 2
    assert "extraction.padding 'white' there, 'black' now" in capsys.readouterr().err


def test_missing_stand_in_names_its_command(run, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run("--teacher", "standin-arc") == 2
    assert "python -m teacher_torch.posttrain --task arc" in capsys.readouterr().err


def test_without_arguments_it_says_that_weights_are_random(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(request, "FEW", 1)
    assert extract.main([]) == 0
    assert "RANDOM weights" in capsys.readouterr().out
    assert store.open(tmp_path / "runs/features/random-arc1-1").manifest.teacher.provenance == "random"


def test_no_room_on_the_disk(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "disk_bytes", lambda *_: 1 << 60)
    assert run() == 2
    assert " free; choose another --out" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_estimate_holds_for_the_least_compressible_values(teacher, words):
    records = arc_plan.choose_records("arc1", ["train"], 9)
    found = request.find_teacher(str(teacher), "arc")
    made = arc_plan.make_manifest(found, words, records, names=["backbone_features"], max_tiles=1, extraction={})
    noise = (
        torch.randn(made.rows(0)["token"], 32).to(torch.bfloat16).view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    )
    written = len(shards.encode(made, "backbone_features", noise))
    assert 0.9 < written / (plan.OTHERWISE * noise.nbytes) < 1.02
    assert plan.disk_bytes(made, [0]) == int(plan.OTHERWISE * made.raw_bytes(0))


def test_batches_are_of_equal_length_and_cover_a_group(run, tmp_path):
    assert run() == 0
    manifest = store.open(tmp_path / "store").manifest
    for group, (first, last) in enumerate(manifest.groups):
        made = batches.of(manifest, group)
        assert sorted(i for batch in made for i in batch) == list(range(first, last))
        assert all(len({manifest.axes["token"].counts[i] for i in batch}) == 1 for batch in made)
        assert max(map(len, made)) <= 2


def test_preparing_ahead_keeps_the_order():
    with extraction.Executor(1) as executor:
        jobs = [(0, [i]) for i in range(9)]
        assert list(extraction._ahead(executor, lambda job: job, jobs)) == jobs
