import itertools
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from bridge import arc
from teacher_torch import (
    arc_batches,
    decoder,
    phases,
    posttrain,
    provenance,
    readout,
    records,
    solve,
    standin,
    tracking,
    trainees,
)
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot import config as sizes

TINY = {"width": 32, "heads": 2, "layers": 1, "size_layers": 1}
DecoderConfig = decoder.DecoderConfig


def tiny_decoder(features, **sizes):
    """A small decoder where no sizes are asked for."""
    return DecoderConfig(features, **(sizes or TINY))


def tiny_config(words):
    """A stand-in of 4 x 4 tokens a frame that takes a step in milliseconds."""
    return sizes.GrootConfig(
        vision=sizes.VisionConfig(16, 32, 1, 2, patch_size=56, image_size=224),
        language=sizes.LanguageConfig(32, 64, 1, 2, 1, head_dim=16, vocab_size=len(words.table)),
        head=sizes.HeadConfig(
            hidden_size=8,
            input_embedding_dim=16,
            output_dim=8,
            future_tokens=2,
            max_positions=16,
            embodiments=32,
            dit=sizes.TransformerConfig(2, 2, 8),
            adapter=sizes.TransformerConfig(1, 2, 16),
        ),
        image_token_id=words.image_id,
    )


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The tiny stand-in in place of the real one, and tiny decoders."""
    monkeypatch.setattr(standin, "make_config", tiny_config)
    monkeypatch.setattr(decoder, "DecoderConfig", tiny_decoder)


def run(out, *extra, threads="1"):
    arguments = ["--out", str(out), "--vision-steps", "3", "--steps", "3", "--batch", "2", "--limit", "3"]
    posttrain.main([*arguments, "--save-every", "2", "--threads", threads, *extra])


def weights(folder):
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "decoder.safetensors")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a whole tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin, "make_config", tiny_config)
        patch.setattr(decoder, "DecoderConfig", tiny_decoder)
        run(out := tmp_path_factory.mktemp("run") / "teacher")
    return out


def test_a_finished_run_is_a_stand_in_teacher(finished):
    teacher = standin.resolve(finished)
    assert teacher.provenance == "stand-in"
    assert teacher.licence == "Apache-2.0"
    assert not (finished / phases.SNAPSHOT).exists()
    model = checkpoint.load(finished, dtype=torch.float32)
    words = tokenizer.load(finished)
    assert model.config == tiny_config(words)
    assert decoder.load(finished).config.features == model.config.width


def test_weights_are_stored_in_bfloat16_so_that_any_type_reads_the_same(finished):
    exact = checkpoint.load(finished, dtype=torch.float32).state_dict()
    assert all(torch.equal(v, v.bfloat16().float()) for v in exact.values())


def test_account_says_how_and_what_was_measured(finished):
    account = provenance.read(finished)
    assert account["command"].startswith("python -m teacher_torch.posttrain --out")
    assert account["settings"]["seed"] == 0
    names = {f"{who}.{what}" for who in ("probe", "copy", "constant") for what in ("size", "cells", "exact")}
    assert names | {"vision.colour", "tokens.directions"} <= set(account["measured"])
    assert all(np.isfinite(value) for value in account["measured"].values())


def test_metrics_hold_every_step_once(finished):
    lines = [json.loads(line) for line in (finished / phases.METRICS).read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [(p, s) for p in ("vision", "tasks") for s in (1, 2, 3)]
    assert {"size", "cells", "gradient_norm", "rate"} <= set(lines[-1])


@pytest.mark.parametrize(("phase", "step"), [("vision", 2), ("vision", 3), ("tasks", 1), ("tasks", 3)])
def test_killed_anywhere_and_resumed_gives_the_same_bytes(finished, tmp_path, monkeypatch, phase, step):
    show = tracking.Display.advance

    def die(self, name, done, metrics):
        show(self, name, done, metrics)
        if (name, done) == (phase, step):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking.Display, "advance", die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
    assert not (tmp_path / "run" / provenance.FILE).exists()
    run(tmp_path / "run", "--resume")
    assert weights(tmp_path / "run") == weights(finished)
    assert (tmp_path / "run" / phases.METRICS).read_text() == (finished / phases.METRICS).read_text()


def test_another_seed_gives_other_weights(finished, tmp_path):
    run(tmp_path / "run", "--seed", "1")
    assert weights(tmp_path / "run") != weights(finished)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_folder_in_use_is_refused(finished, capsys):
    assert "--resume" in refused(capsys, finished)


def test_a_finished_run_is_not_trained_again(finished, monkeypatch, capsys):
    monkeypatch.setattr(phases.Run, "train", lambda *_: pytest.fail("trained again"))
    run(finished, "--resume")
    assert "copy" in capsys.readouterr().out


def test_resume_with_other_settings_is_refused(finished, capsys):
    assert "other settings" in refused(capsys, finished, "--resume", "--seed", "1")


def test_resume_of_an_unfinished_run_with_other_settings_is_refused(tmp_path):
    layer = torch.nn.Linear(1, 1)
    phases.Run(tmp_path, {"layer": layer}, [], settings={"seed": 0})._save(None)
    with pytest.raises(phases.TrainingError, match="seed differ"):
        phases.Run(tmp_path, {"layer": layer}, [], settings={"seed": 1}).resume()


def test_nonsense_numbers_are_refused(tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, "--steps", "0")


def test_missing_teacher_is_one_clean_line(tmp_path, capsys):
    error = refused(capsys, tmp_path, "--teacher", str(tmp_path / "no" / "where"))
    assert error.startswith("error: no checkpoint folder")


def test_a_loss_that_is_not_finite_stops_and_says_which(tmp_path):
    layer = torch.nn.Linear(1, 1)
    bad = phases.Phase("tasks", 2, [(1e-3, [layer])], lambda _: {"cells": layer.weight.sum() * float("nan")})
    with pytest.raises(phases.TrainingError, match=r"step 0 of phase tasks.*'cells': nan"):
        phases.Run(tmp_path, {"layer": layer}, [bad], settings={}).train(lambda *_: None)


def test_frozen_teacher_keeps_its_weights_and_computes_features_once(finished, tmp_path, monkeypatch, capsys):
    before = standin.resolve(finished).digest
    run(tmp_path / "probe", "--teacher", str(finished))
    assert standin.resolve(finished).digest == before
    account = json.loads((tmp_path / "probe" / posttrain.PROBE).read_text())
    assert (account["provenance"], account["settings"]["teacher"]) == ("stand-in", before)
    assert not (tmp_path / "probe" / "model.safetensors").exists()
    cached = list((tmp_path / "probe" / "features").rglob("*.pt"))
    tasks = [task for split in ("train", "validation") for task in arc.splits(1)[split][:3]]
    assert len(cached) == sum(len(task.train) + len(task.test) for task in tasks)


def test_frozen_features_are_the_model_s_own(finished, tmp_path):
    words = tokenizer.load(finished)
    model = checkpoint.load(finished, dtype=torch.float32)
    trainee = trainees.FrozenTrainee(model, words, cache=tmp_path, max_tiles=1, seed=0)
    task = arc.splits(1)["train"][0]
    trainee.fill([task], lambda *_: None)
    fresh, cached = (trainee.read(arc_batches.published([task])).features for _ in range(2))
    assert torch.equal(fresh, cached)
    given = trainee.layout.prepare([arc.records(task)[0].cells])
    with torch.no_grad():
        features = model.features(given.input_ids, given.attention_mask, given.pixel_values)[0]
    assert torch.equal(cached[0, : len(features)], features.bfloat16())


def test_features_that_do_not_fit_the_disk_are_refused(finished, tmp_path, monkeypatch):
    model = checkpoint.load(finished, dtype=torch.float32)
    trainee = trainees.FrozenTrainee(model, tokenizer.load(finished), cache=tmp_path, max_tiles=1, seed=0)
    monkeypatch.setattr(trainees.shutil, "disk_usage", lambda _: trainees.shutil._ntuple_diskusage(1, 1, 10))
    with pytest.raises(trainees.DiskError, match="--max-tiles 1"):
        trainee.fill(arc.splits(1)["train"][:1], lambda *_: None)


def test_its_probe_answers_published_tasks(finished, tmp_path, capsys):
    tasks = arc.splits(1)["test"][:2]
    names, out = [task.id for task in tasks], tmp_path / "answers.json"
    arguments = ["--teacher", str(finished), "--out", str(out), "--tasks", *names]
    assert solve.main(arguments) == 0
    told = json.loads(out.read_text())
    assert told["teacher"]["digest"] == standin.resolve(finished).digest
    assert {name: len(told["answers"][name]) for name in names} == {task.id: len(task.test) for task in tasks}
    model, words = checkpoint.load(finished, dtype=torch.float32), tokenizer.load(finished)
    layout = records.Layout(model.config, words, max_tiles=1)
    with torch.inference_mode():
        episode = arc_batches.published(tasks[:1])[0]
        alone = decoder.load(finished).predict(records.read(model, layout, [episode]))[0]
    assert told["answers"][names[0]][0]["attempt_1"] == alone.tolist()
    assert solve.main([*arguments, "--digest", "other"]) == 2
    assert solve.main(["--teacher", str(finished), "--tasks", "nothing", "--out", str(out)]) == 2
    assert "nothing" in capsys.readouterr().err
    assert solve.main([*arguments, "--device", "tpu9"]) == 2
    assert "--device tpu9" in capsys.readouterr().err


def test_a_decoder_of_an_earlier_version_says_how_to_make_it_again(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "old")
    path = tmp_path / "old" / decoder.WEIGHTS
    kept = safetensors.torch.load_file(path)
    safetensors.torch.save_file({name: kept[name] for name in list(kept)[1:]}, path)
    with pytest.raises(ValueError, match="train it again"):
        decoder.load(tmp_path / "old")


def test_vision_pixels_are_the_teacher_s_own():
    words = standin.make_tokenizer()
    trainee = trainees.StandInTrainee(tiny_config(words), words, seed=0)
    cells = arc_batches.canvases(arc_batches.grids(arc.splits(1)["train"][:5]), np.random.default_rng(0), 2)
    ours = trainee.layout.prepare(list(cells[:, None])).pixel_values
    theirs = torch.cat([inputs.pixel_values(arc.render(c), max_tiles=1) for c in cells])
    assert torch.equal(ours, theirs)


def test_readout_looks_at_the_token_over_the_cell_only():
    local = readout.CellReadout(4, 8)
    tokens = torch.randn(1, 64, 4, requires_grad=True)
    local(tokens)[0, 29, 4].sum().backward()
    assert tokens.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [7 * 8 + 1]


def test_every_cell_has_a_slot_of_its_own():
    local = readout.CellReadout(4, 8)
    assert len({(int(t), int(s)) for t, s in zip(local.token.flatten(), local.slot.flatten(), strict=True)}) == 900


def test_episodes_are_augmented_pairs_of_one_task_and_a_query_of_one_frame():
    tasks = arc.splits(1)["train"][:4]
    for batch in arc_batches.draw(tasks, np.random.default_rng(0), size=3, batches=4, most_shown=3):
        for episode in batch:
            assert episode.asked.shape == (1, 30, 30)
            assert 1 <= len(episode.shown) <= 3
            assert all(frames.shape == (2, 30, 30) for frames in episode.shown)


def test_batches_group_answers_of_like_size():
    tasks = arc.splits(1)["train"][:30]
    batches = arc_batches.draw(tasks, np.random.default_rng(0), size=4, batches=8, most_shown=1)
    ranges = sorted((min(s), max(s)) for s in [[max(e.answer.shape) for e in batch] for batch in batches])
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))


def test_validation_tasks_are_asked_as_published():
    task = arc.splits(1)["validation"][0]
    episode = arc_batches.published([task])[0]
    assert np.array_equal(episode.asked[0], arc.cells(task.test[0].input))
    assert [len(episode.shown), episode.answer.tolist()] == [len(task.train), task.test[0].output.tolist()]
