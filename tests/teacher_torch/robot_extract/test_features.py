"""Every feature of a robot is what the model gives alone, and no label reaches the teacher."""

import dataclasses

import ml_dtypes
import numpy as np
import torch

from bridge import embodiment as embodiments
from bridge import episodes, store
from teacher_torch import (
    robot_inputs,
    robot_plan,
    robot_records,
    robot_request,
    robot_samples,
    robot_source,
    taps,
)
from teacher_torch.groot import checkpoint, inputs
from teacher_torch.groot import config as sizes


def near(stored: np.ndarray, expected: torch.Tensor, name: str) -> None:
    tolerance = {"rtol": 2**-8, "atol": 1e-5} if stored.dtype == ml_dtypes.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(
        stored.astype(np.float32), expected.float().reshape(stored.shape).numpy(), **tolerance, err_msg=name
    )


def test_records_are_every_other_row_of_each_splits_episodes(finished, toy):
    manifest = store.open(finished).manifest
    found = list(zip(*(manifest.records[name] for name in ("episode", "row", "split", "instruction")), strict=True))
    assert found == [
        (number, row, split, toy.texts[number % 2])
        for number, (length, split) in enumerate(toy.episodes)
        for row in range(0, length, 2)
    ]
    assert manifest.task == "robot"
    assert manifest.extraction["instructions"] == sorted(toy.texts)
    assert manifest.extraction["views"] == list(toy.views)
    assert manifest.extraction["steps"] == 2
    assert manifest.extraction["state"] == [["hand", 3], ["gripper", 1]]


def test_every_feature_is_what_the_model_gives_alone(finished, teacher, dataset, body, toy):
    """From the dataset's own rows, by the official chain, one record at a time."""
    reader, data = store.open(finished), episodes.open(dataset)
    model = checkpoint.load(teacher, dtype=torch.float32)
    words = robot_request.request.load_tokenizer(None, robot_request.request.find_teacher(str(teacher), "robot"))
    for index in (1, reader.manifest.size - 1):
        number, row = (reader.manifest.records[name][index] for name in ("episode", "row"))
        rows = data.rows(number)
        frames = np.stack([data.frames(number, key, np.array([row]))[0] for key in toy.views])
        state = embodiments.normalise(body, {key: rows[f"state.{key}"][row] for key in toy.spec.state}).astype(
            np.float32
        )
        text = toy.texts[number % 2]
        seen = inputs.Observation(frames[None, None], state[None, None], (text,), "toybot")
        given = inputs.prepare(seen, body, words, tile=toy.side, tokens_per_tile=4, state_dim=6)
        seed = robot_plan.noise_seed(number, row, 0)
        noise = torch.randn((toy.draws, 3, 6), generator=torch.Generator().manual_seed(seed))[None]
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


def test_paths_join_noise_and_actions_and_saliency_is_a_distribution(finished, toy):
    reader = store.open(finished)
    everything = np.arange(reader.manifest.size)
    path, velocity = reader.take("path", everything), reader.take("velocity", everything)
    assert path.shape == (len(everything), toy.draws, 3, 3, 4)
    assert np.array_equal(path[:, :, 0], reader.take("noise", everything))
    assert np.array_equal(path[:, :, -1], reader.take("actions", everything))
    np.testing.assert_allclose(np.diff(path, axis=2), velocity / 2, atol=1e-5)
    np.testing.assert_allclose(reader.take("saliency", everything).sum(1), 1, rtol=1e-5)
    assert len(np.unique(reader.take("noise", everything)[:, :, 0, 0])) == len(everything) * toy.draws


def test_labels_do_not_reach_the_teacher(dataset, body, teacher, tmp_path, toy):
    """Every input is the same without what the labels say, and without the labels' columns."""
    blank = toy.record(tmp_path / "blank", blank=True)
    bare = tmp_path / "bare"
    writer = episodes.create(bare, dataclasses.replace(toy.spec, labels={}))
    for number, (length, split) in enumerate(toy.episodes):
        given = toy.episode(number, length) | {"labels": {}}
        writer.add(**given, instruction=toy.texts[number % 2], extra={"split": split})
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
            texts=sorted(toy.texts),
            seed=0,
        )
        found.append(source.prepare(range(9)).inputs)
    for other in found[1:]:
        for field in dataclasses.fields(other):
            assert torch.equal(getattr(other, field.name), getattr(found[0], field.name)), field.name
