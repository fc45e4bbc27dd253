"""Extraction from a robot: every feature is what the model gives alone, nothing depends on interruption or labels."""

import dataclasses
import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch

from bridge import embodiment as embodiments
from bridge import episodes, shards, store, summary, validate
from bridge import transform as transforms
from bridge.lerobot_spec import Spec
from teacher_torch import (
    extract,
    provenance,
    robot_inputs,
    robot_plan,
    robot_records,
    robot_request,
    robot_samples,
    robot_source,
    standin,
    taps,
)
from teacher_torch.groot import checkpoint, inputs
from teacher_torch.groot import config as sizes
from teacher_torch.groot.model import Groot

SIDE, VIEWS, DRAWS = 32, ("side", "top"), 3
TEXTS = ("push the button", "open the very small drawer")
EPISODES = ((9, "train"), (6, "train"), (5, "validation"), (4, "test"))
FEW = ("--stride", "2", "--draws", str(DRAWS), "--group", "4", "--batch-size", "2")
SPEC = Spec(
    fps=20,
    videos={"top": (SIDE, SIDE), "side": (SIDE, SIDE)},
    state={"hand": 3, "gripper": 1},
    action={"delta": 3, "gripper": 1},
    labels={"objects": 6, "pixels": 8},
    robot_type="toybot",
    relative=("action.delta",),
)


def episode(number: int, length: int) -> dict:
    rng = np.random.default_rng(number)
    labels = {name: rng.random((length, width), np.float32) for name, width in SPEC.labels.items()}
    labels["objects"][:, 3:] = np.nan
    return {
        "frames": {key: rng.integers(0, 256, (length, SIDE, SIDE, 3), np.uint8) for key in SPEC.videos},
        "state": {key: rng.uniform(-1, 1, (length, width)).astype(np.float32) for key, width in SPEC.state.items()},
        "action": {key: rng.uniform(-1, 1, (length, width)).astype(np.float32) for key, width in SPEC.action.items()},
        "labels": labels,
    }


def record(folder: pathlib.Path, *, blank: bool = False) -> pathlib.Path:
    """A dataset of four episodes; blank: without what the labels say."""
    writer = episodes.create(folder, SPEC)
    for number, (length, split) in enumerate(EPISODES):
        given = episode(number, length)
        if blank:
            given["labels"] = {name: np.zeros_like(values) for name, values in given["labels"].items()}
        writer.add(**given, instruction=TEXTS[number % 2], extra={"split": split})
    writer.close()
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> pathlib.Path:
    return record(tmp_path_factory.mktemp("robots") / "toy")


@pytest.fixture(scope="session")
def body(dataset) -> embodiments.Embodiment:
    """The views in another order than the dataset has them, a crop, chunks of 3 actions."""
    keys = ["state.hand", "state.gripper", "action.delta", "action.gripper"]
    transform = dataclasses.replace(
        transforms.official("toybot", VIEWS, keys), resize=SIDE, max_tiles=1, projector_id=1, horizon=3
    )
    return episodes.open(dataset).measure("toybot", transform)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, body) -> pathlib.Path:
    """A random teacher of four tokens a view, with tokenizer, embodiment and an account of its success."""
    folder = tmp_path_factory.mktemp("teachers") / "tiny"
    words = standin.cut_tokenizer(inputs.prompt(str([text]), [1, 1], 1) for text in TEXTS)
    config = sizes.GrootConfig(
        vision=sizes.VisionConfig(16, 32, 2, 2, patch_size=16, image_size=SIDE),
        language=sizes.LanguageConfig(32, 64, 2, 2, 1, head_dim=16, vocab_size=len(words.table)),
        head=sizes.HeadConfig(
            hidden_size=16,
            input_embedding_dim=16,
            output_dim=16,
            action_dim=6,
            state_dim=6,
            horizon=3,
            future_tokens=2,
            max_positions=32,
            embodiments=2,
            steps=2,
            dit=sizes.TransformerConfig(2, 2, 8),
            adapter=sizes.TransformerConfig(1, 2, 16),
        ),
        image_token_id=words.image_id,
    )
    torch.manual_seed(0)
    checkpoint.save(Groot(config), folder)
    words.save(folder)
    embodiments.save(folder / robot_request.METADATA, body)
    content = {"provenance": "random", "licence": "Apache-2.0", "measured": {"success.mean": 0.9}}
    provenance.write(folder, content)
    return folder


@pytest.fixture
def run(teacher, dataset, tmp_path):
    """(options...) -> exit code of an extraction with the tiny teacher into tmp_path / out."""

    def extracting(*options, out="store", data=dataset):
        given = ["--task", "robot", "--teacher", str(teacher), "--dataset", str(data), "--device", "cpu"]
        return extract.main([*given, "--out", str(tmp_path / out), *FEW, *options])

    return extracting


@pytest.fixture(scope="session")
def finished(teacher, dataset, tmp_path_factory):
    """A store with every feature, at full stride."""
    folder = tmp_path_factory.mktemp("stores") / "whole"
    known = robot_plan.features(sizes.from_folder(teacher), robot_plan.Shapes(4, 4, 2, (SIDE, SIDE), 2, True, 1, 1))
    given = ["--task", "robot", "--teacher", str(teacher), "--dataset", str(dataset), "--device", "cpu"]
    assert extract.main([*given, "--out", str(folder), *FEW, "--features", *known]) == 0
    return folder


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def near(stored: np.ndarray, expected: torch.Tensor, name: str) -> None:
    tolerance = {"rtol": 2**-8, "atol": 1e-5} if stored.dtype == ml_dtypes.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(
        stored.astype(np.float32), expected.float().reshape(stored.shape).numpy(), **tolerance, err_msg=name
    )


def test_records_are_every_other_row_of_each_splits_episodes(finished):
    manifest = store.open(finished).manifest
    found = list(zip(*(manifest.records[name] for name in ("episode", "row", "split", "instruction")), strict=True))
    assert found == [
        (number, row, split, TEXTS[number % 2])
        for number, (length, split) in enumerate(EPISODES)
        for row in range(0, length, 2)
    ]
    assert manifest.task == "robot"
    assert manifest.extraction["instructions"] == sorted(TEXTS)
    assert manifest.extraction["views"] == list(VIEWS)
    assert manifest.extraction["steps"] == 2
    assert manifest.extraction["state"] == [["hand", 3], ["gripper", 1]]


def test_every_feature_is_what_the_model_gives_alone(finished, teacher, dataset, body):
    """From the dataset's own rows, by the official chain, one record at a time."""
    reader, data = store.open(finished), episodes.open(dataset)
    model = checkpoint.load(teacher, dtype=torch.float32)
    words = robot_request.request.load_tokenizer(None, robot_request.request.find_teacher(str(teacher), "robot"))
    for index in (1, reader.manifest.size - 1):
        number, row = (reader.manifest.records[name][index] for name in ("episode", "row"))
        rows = data.rows(number)
        frames = np.stack([data.frames(number, key, np.array([row]))[0] for key in VIEWS])
        state = embodiments.normalise(body, {key: rows[f"state.{key}"][row] for key in SPEC.state}).astype(np.float32)
        text = TEXTS[number % 2]
        seen = inputs.Observation(frames[None, None], state[None, None], (text,), "toybot")
        given = inputs.prepare(seen, body, words, tile=SIDE, tokens_per_tile=4, state_dim=6)
        seed = robot_plan.noise_seed(number, row, 0)
        noise = torch.randn((DRAWS, 3, 6), generator=torch.Generator().manual_seed(seed))[None]
        taken = taps.collect(model, given, taps.NAMES, noise=noise, steps=2, action_dim=4)
        image = taken["image_mask"][0]
        for name in (*taps.INPUT, *taps.VISION, *taps.LANGUAGE, *taps.HEAD, "confidence"):
            near(reader.record(name, index), taken[name], name)
        for name in ("noise", "actions", "path", "velocity"):
            near(reader.record(name, index), taken[name][..., :4], name)
        near(reader.record("saliency", index), taken["saliency"][0, image], "saliency")
        near(reader.record("fused_tokens", index), taken["adapted_features"][0, image], "fused")
        near(reader.record("image_features", index), taken["backbone_features"][0, image], "image")
        ids = given.input_ids[0].tolist()
        said = words.encode(str([text]))
        start = next(i for i in range(len(ids)) if ids[i : i + len(said)] == said)
        near(
            reader.record("text_features", index),
            taken["adapted_features"][0, start : start + len(said)].mean(0),
            "text",
        )
        assert np.array_equal(reader.record("frames", index), frames)
        assert np.array_equal(reader.record("state", index)[0], state)
        assert reader.manifest.extraction["instructions"][reader.record("instruction_id", index)[0]] == text
        truth = rows["label.pixels"][row].reshape(2, 2, 2)[::-1]  # the dataset's cameras are top, side
        assert np.array_equal(reader.record("pixels", index)[0], truth)
        assert np.array_equal(reader.record("objects", index)[0].ravel(), rows["label.objects"][row], equal_nan=True)


def test_state_and_demonstration_are_those_of_training(finished, dataset, body):
    reader = store.open(finished)
    samples = robot_samples.Samples(episodes.open(dataset), body, "train", stride=2)
    batch, records = samples.read(np.arange(len(samples))), reader.records("train")
    assert np.array_equal(reader.take("state", records)[:, None], batch.state)
    assert np.array_equal(reader.take("demonstration", records), batch.actions)
    assert np.array_equal(reader.take("frames", records), batch.frames)


def test_paths_join_noise_and_actions_and_saliency_is_a_distribution(finished):
    reader = store.open(finished)
    everything = np.arange(reader.manifest.size)
    path, velocity = reader.take("path", everything), reader.take("velocity", everything)
    assert path.shape == (len(everything), DRAWS, 3, 3, 4)
    assert np.array_equal(path[:, :, 0], reader.take("noise", everything))
    assert np.array_equal(path[:, :, -1], reader.take("actions", everything))
    np.testing.assert_allclose(np.diff(path, axis=2), velocity / 2, atol=1e-5)
    np.testing.assert_allclose(reader.take("saliency", everything).sum(1), 1, rtol=1e-5)
    assert len(np.unique(reader.take("noise", everything)[:, :, 0, 0])) == len(everything) * DRAWS


def test_reader_takes_records_in_any_order(finished):
    reader = store.open(finished)
    assert reader.take("image_tokens", [3, 0, 3]).shape == (3, 8, 32)
    assert np.array_equal(reader.take("image_tokens", [3, 0])[1], reader.record("image_tokens", 0))
    rows, starts = reader.frames("validation")
    records = reader.records("validation")
    assert np.array_equal(reader.read("frames", rows, 1)[:, 0], np.concatenate(reader.take("frames", records)))
    assert np.array_equal(
        reader.read("image_tokens", starts, 4).reshape(len(records), 8, 32), reader.take("image_tokens", records)
    )
    with pytest.raises(ValueError, match="use record"):
        reader.take("input_ids", np.arange(reader.manifest.size))


def test_embodiment_lies_beside_the_manifest(finished, body, tmp_path):
    stored = store.open(finished).embodiment()
    assert stored.transform == body.transform
    assert stored.dimensions("action") == body.dimensions("action")
    shutil.copytree(finished, tmp_path / "copy")
    path = tmp_path / "copy/embodiment.json"
    path.write_text(path.read_text().replace("0.95", "0.96"))
    with pytest.raises(store.StoreError, match=r"embodiment\.json: missing or not the one"):
        store.open(tmp_path / "copy").embodiment()


def test_store_passes_its_own_check(finished, tmp_path, capsys):
    assert validate.main([str(finished), "--picture", str(tmp_path / "seen.png")]) == 0
    said = capsys.readouterr().out
    assert "no faults" in said
    assert "train: 2 episodes, 8 records, 16 frames" in said
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("path", (0, 0, 0), 9, "does not join its noise"),
        ("saliency", 3, 9, "sums to"),
        ("confidence", 1, 1.5, "at most 1"),
        ("instruction_id", 0, 0, "is not the number of"),
        ("state", (0, 0), np.nan, "1 values are not finite"),
    ],
)
def test_check_finds_faulty_values(finished, tmp_path, monkeypatch, capsys, name, index, value, message):
    monkeypatch.setattr(summary, "draw", lambda *_: None)
    reader = store.open(finished)
    writer = store.create(tmp_path / "bad", reader.manifest)
    shutil.copy(finished / "embodiment.json", tmp_path / "bad")
    rows = reader.manifest.rows(0)
    arrays = {n: reader.read(n, np.array([0]), rows[f.axis])[0] for n, f in reader.manifest.features.items()}
    arrays[name][index] = value
    writer.write(0, arrays)
    assert validate.main([str(tmp_path / "bad")]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "not committed" not in line]
    assert any(line.startswith(f"FAULT group 0, {name}: ") and message in line for line in said)


def test_labels_do_not_reach_the_teacher(dataset, body, teacher, tmp_path):
    """Every input is the same without what the labels say, and without the labels' columns."""
    blank = record(tmp_path / "blank", blank=True)
    bare = tmp_path / "bare"
    writer = episodes.create(bare, dataclasses.replace(SPEC, labels={}))
    for number, (length, split) in enumerate(EPISODES):
        given = episode(number, length) | {"labels": {}}
        writer.add(**given, instruction=TEXTS[number % 2], extra={"split": split})
    writer.close()
    found = []
    for folder in (dataset, blank, bare):
        data = episodes.open(folder)
        records = robot_records.choose(data, ["train"], limit=None, stride=1)
        words = robot_request.request.load_tokenizer(None, robot_request.request.find_teacher(str(teacher), "robot"))
        preparer = robot_inputs.Preparer(sizes.from_folder(teacher), body, words)
        source = robot_source.Source(
            robot_records.Observations(data, body, records),
            preparer,
            robot_plan.Words(preparer),
            shapes=robot_request.measure(data, body, draws=2, steps=1),
            texts=sorted(TEXTS),
            seed=0,
        )
        found.append(source.prepare(range(9)).inputs)
    for other in found[1:]:
        for field in dataclasses.fields(other):
            assert torch.equal(getattr(other, field.name), getattr(found[0], field.name)), field.name


def test_interrupted_anywhere_gives_the_same_bytes(run, tmp_path, monkeypatch):
    assert run(out="whole") == 0
    write, calls = shards.write, []

    def failing(files, contents):
        calls.append(list(contents))
        if len(calls) in (4, 7):
            raise KeyboardInterrupt
        write(files, contents)

    monkeypatch.setattr(shards, "write", failing)
    assert run() == extract.INTERRUPTED
    assert run() == extract.INTERRUPTED
    (tmp_path / "store/embodiment.json").unlink()
    assert run() == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
    assert "image_features/zarr.json" not in files_of(tmp_path / "whole")
    assert "frames/zarr.json" in files_of(tmp_path / "whole")


def test_shards_write_one_store(run, tmp_path):
    assert run(out="whole") == 0
    assert run("--shard", "1/2") == 0
    assert run("--shard", "0/2") == 0
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_batch_size_changes_no_value_but_rounding(run, tmp_path):
    names = ("--features", "actions", "fused_tokens", "text_features", "frames")
    assert run("--batch-size", "1", *names, out="one") == 0
    assert run("--batch-size", "4", *names, out="four") == 0
    one, four = (store.open(tmp_path / name) for name in ("one", "four"))
    for name in names[1:]:
        found = [reader.take(name, np.arange(reader.manifest.size)).astype(np.float32) for reader in (one, four)]
        np.testing.assert_allclose(*found, rtol=2**-7, atol=1e-4, err_msg=name)


def test_splits_and_limit(run, tmp_path):
    assert run("--splits", "train", "--limit", "1", "--features", "state", "--stride", "1") == 0
    records = store.open(tmp_path / "store").manifest.records
    assert set(records["episode"]) == {0}
    assert records["row"] == tuple(range(9))


def test_model_is_loaded_only_as_far_as_needed(run, monkeypatch):
    load, wanted = checkpoint.load, []

    def watched(folder, **options):
        wanted.append(options["features_only"])
        return load(folder, **options)

    monkeypatch.setattr(checkpoint, "load", watched)
    assert run("--features", "state", "frames", out="none") == 0
    assert run("--features", "image_tokens", out="without") == 0
    assert run("--features", "text_features", out="with") == 0
    assert wanted == [True, False]


@pytest.mark.parametrize(
    ("measured", "message"),
    [({"success.mean": 0.9}, None), ({"success.mean": 0.2}, "success 20%"), ({}, "success never measured")],
)
def test_teacher_that_fails_is_said_loudly(run, teacher, tmp_path, capsys, measured, message):
    copy = shutil.copytree(teacher, tmp_path / "copy")
    provenance.write(copy, {"provenance": "random", "measured": measured})
    assert run("--teacher", str(copy), "--features", "state") == 0
    said = capsys.readouterr().out
    assert ("distillation from a teacher that fails its task" in said) == (message is not None)
    assert message is None or message in said
    assert store.open(tmp_path / "store").manifest.extraction["teacher_success"] == measured.get("success.mean")


@pytest.fixture
def changed(body, tmp_path):
    """(what, value) -> metadata file of an embodiment in which that is different."""

    def make(what, value):
        if what == "transform":
            altered = dataclasses.replace(body, transform=dataclasses.replace(body.transform, **value))
        else:
            altered = dataclasses.replace(body, statistics=body.statistics | {what: value(body.statistics[what])})
        embodiments.save(tmp_path / "other.json", altered)
        return tmp_path / "other.json"

    return make


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [
        ("state", lambda keys: {"arm": keys["hand"]}, "the statistics are another robot's: state keys"),
        (
            "action",
            lambda keys: {k: {n: v - 50 for n, v in s.items()} for k, s in keys.items()},
            "look like another robot's: action",
        ),
        ("transform", {"video_keys": ("wrist",)}, "video keys ['wrist'] are not in the dataset's"),
        ("transform", {"resize": 224}, "--resize 32"),
        ("transform", {"horizon": 16}, "chunks of 16 actions, the teacher makes 3"),
        ("transform", {"projector_id": 9}, "uses projector 9, the teacher has 2"),
    ],
)
def test_embodiment_that_does_not_fit(run, changed, monkeypatch, capsys, what, value, message):
    monkeypatch.setattr(checkpoint, "load", None)
    assert run("--metadata", str(changed(what, value))) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--features", "cells"), "no such features for this robot: cells; there are state, demonstration"),
        (("--draws", "1"), "2 draws for confidence"),
        (("--steps", "0"), "--steps 0"),
        (("--stride", "0"), "--stride 0: expected 1"),
        (("--seed", "-1"), "--seed -1"),
        (("--splits", "dev"), "no such splits: dev"),
        (("--limit", "0"), "at least one episode a split"),
        (("--dataset", "nowhere"), "python -m bridge.demonstrations"),
        (("--embodiment", "gr1"), "holds no embodiment 'gr1'"),
        (("--teacher", "nowhere"), "no checkpoint folder nowhere"),
    ],
)
def test_requests_that_cannot_be_met(run, capsys, options, message):
    assert run(*options) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


def test_truncated_video_is_found_before_the_model_is_loaded(run, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "load", None)
    copy = shutil.copytree(dataset, tmp_path / "copy")
    path = next(copy.glob("videos/*/*/episode_000001.mp4"))
    path.write_bytes(path.read_bytes()[:-400])
    assert run(data=copy) == 2
    assert "episode_000001.mp4" in capsys.readouterr().err


def test_other_data_does_not_go_into_the_same_store(run, dataset, tmp_path, capsys):
    assert run("--features", "state") == 0
    blank = record(tmp_path / "again/toy", blank=True)
    assert run("--features", "state", data=blank) == 2
    assert "extraction.dataset_digest" in capsys.readouterr().err


def test_empty_instruction_has_no_text_features(teacher, body):
    words = robot_request.request.load_tokenizer(None, robot_request.request.find_teacher(str(teacher), "robot"))
    plain = dataclasses.replace(body, transform=dataclasses.replace(body.transform, instruction_style="plain"))
    prompts = robot_plan.Words(robot_inputs.Preparer(sizes.from_folder(teacher), plain, words))
    with pytest.raises(robot_plan.PlanError, match="empty instruction"):
        prompts.span("")


def test_without_a_teacher_a_random_one_fits_the_robot(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(standin, "SHIPPED", tmp_path / "nothing")
    options = ("--task", "robot", "--dataset", str(dataset), "--limit", "1", "--splits", "test", "--draws", "2")
    assert extract.main([*options, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "RANDOM weights" in said
    assert "posttrain --task robot" in said
    reader = store.open(tmp_path / "runs/features/random-toy-1")
    assert reader.manifest.teacher.provenance == "random"
    assert reader.take("image_tokens", [0]).shape == (1, 128, 128)
    assert json.loads((tmp_path / "runs/features/random-toy-1/embodiment.json").read_text())["toybot"]


def test_teacher_of_another_task_is_refused(run, teacher, tmp_path, capsys):
    copy = shutil.copytree(teacher, tmp_path / "copy")
    provenance.write(copy, {"provenance": "random", "settings": {"task": "arc"}})
    assert run("--teacher", str(copy)) == 2
    assert (
        "was trained for --task arc, not robot: name another --teacher, such as standin-robot"
        in capsys.readouterr().err
    )
