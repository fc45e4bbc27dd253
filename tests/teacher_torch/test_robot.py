"""Robot post-training on a tiny dataset that is drawn here: a dot to be reached, its place told by simulator truth."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from bridge import embodiment, episodes, simulator
from bridge import embodiment as embodiments
from bridge.observation import Observation
from teacher_torch import (
    actor,
    flow,
    phases,
    posttrain,
    provenance,
    robot_inputs,
    robot_posttrain,
    robot_request,
    robot_samples,
    robot_trainees,
    sight,
    standin,
    taps,
)
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot.model import Groot
from teacher_torch.robot_lesson import Options

SPEC = episodes.Spec(
    fps=10,
    videos={"top": (32, 32), "side": (32, 32)},
    state={"hand": 3, "gripper": 1},
    action={"delta": 3, "gripper": 1},
    labels={"objects": 6, "pixels": 8},
    relative=("action.delta",),
)


def write(folder, *, count=6, labels=True):
    spec = SPEC if labels else dataclasses.replace(SPEC, labels={})
    writer = episodes.create(folder, spec)
    for index in range(count):
        rng = np.random.default_rng(index)
        n, place = 8 + index, rng.uniform(0.1, 0.9, 2)
        frames = np.full((n, 32, 32, 3), 40, np.uint8)
        row, column = (place * 32).astype(int)
        frames[:, max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = 250
        state = rng.normal(size=(n, 4)).astype(np.float32)
        action = rng.uniform(-1, 1, (n, 4)).astype(np.float32)
        seen = np.concatenate([np.tile(place, 2), np.tile(place[::-1], 2)])  # another place in the other camera
        truth = {"objects": np.tile(rng.normal(size=6), (n, 1)), "pixels": np.tile(seen, (n, 1))}
        writer.add(
            frames={"top": frames, "side": frames},
            state={"hand": state[:, :3], "gripper": state[:, 3:]},
            action={"delta": action[:, :3], "gripper": action[:, 3:]},
            instruction=["reach the dot", "go to the bright dot"][index % 2],
            labels={k: v.astype(np.float32) for k, v in truth.items()} if labels else None,
            extra={"split": "validation" if index == count - 1 else "train"},
        )
    writer.close()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("robot") / "data")


@pytest.fixture(scope="module")
def dataset(folder):
    return episodes.open(folder)


@pytest.fixture(scope="module")
def body(dataset):
    return robot_posttrain.make_body(Options(), dataset, None)[0]


@pytest.fixture(scope="module")
def words(dataset):
    said = {episode.instruction for episode in dataset.episodes}
    return standin.cut_tokenizer(inputs.prompt(text, [1, 1], 1) for text in said)


@pytest.fixture(scope="module")
def model(words):
    torch.manual_seed(0)
    return Groot(standin.make_robot_config(words)).eval()


@pytest.fixture(scope="module")
def samples(dataset, body):
    return robot_samples.Samples(dataset, body, "train", stride=3)


@pytest.fixture(scope="module")
def preparer(model, body, words):
    return robot_inputs.Preparer(model.config, body, words)


def test_samples_hold_what_the_dataset_says(samples, dataset, body):
    batch = samples.read(np.array([0, len(samples) - 1]))
    assert batch.frames.shape == (2, 2, 32, 32, 3)
    assert batch.state.shape == (2, 1, 4)
    assert batch.actions.shape == (2, body.transform.horizon, 4)
    assert batch.instruction == (dataset.episodes[0].instruction, dataset.episodes[4].instruction)
    rows = dataset.rows(0)
    np.testing.assert_allclose(
        embodiment.denormalise_rows(body, batch.actions[:1])[0, :8, :3], rows["action.delta"], atol=1e-5
    )


def test_beyond_the_end_displacements_are_zero_and_the_gripper_stays(samples, dataset, body):
    last = samples.read(np.array([np.flatnonzero(samples.episode == 0)[-1]]))
    chunk = embodiment.denormalise_rows(body, last.actions)[0]
    np.testing.assert_allclose(chunk[-1, :3], 0, atol=1e-5)
    np.testing.assert_allclose(chunk[-1, 3], dataset.rows(0)["action.gripper"][-1, 0], atol=1e-5)


def test_labels_follow_the_order_in_which_the_body_sees_its_cameras(samples, dataset, body):
    turned = dataclasses.replace(body.transform, video_keys=body.transform.video_keys[::-1])
    other = robot_samples.Samples(dataset, dataclasses.replace(body, transform=turned), "train", stride=3)
    places = dataset.rows(0)["label.pixels"][0].reshape(2, 2, 2)
    np.testing.assert_array_equal(other.read(np.array([0])).pixels[0], places[::-1])
    np.testing.assert_array_equal(samples.read(np.array([0])).pixels[0], places)


def test_frames_that_do_not_fit_into_memory_are_decoded_again(samples, dataset, body):
    small = robot_samples.Samples(dataset, body, "train", stride=3, cache_gib=0)
    at = np.arange(len(small))
    np.testing.assert_array_equal(small.read(at).frames, samples.read(at).frames)


def test_prepared_inputs_are_those_of_the_official_chain(samples, preparer, body, words, model):
    batch = samples.read(np.array([0]))
    observation = Observation(batch.frames[:, None], batch.state, batch.instruction, body.tag)
    wanted = inputs.prepare(
        observation, body, words, tile=128, tokens_per_tile=64, state_dim=model.config.head.state_dim
    )
    found = preparer.prepare(batch.frames, batch.state, batch.instruction)
    for field in dataclasses.fields(wanted):
        torch.testing.assert_close(getattr(found, field.name), getattr(wanted, field.name), msg=field.name)


def test_a_masked_ragged_batch_gives_each_sample_what_it_gets_alone(samples, preparer, model):
    """The official head sees the padding of shorter prompts; with the mask it does not."""
    batch = samples.read(np.array([0, len(samples) - 5]))
    assert len({*batch.instruction}) == 2
    given = preparer.prepare(batch.frames, batch.state, batch.instruction)
    noise = taps.draw_noise(model, [1, 2])[:, 0]

    def act(given, noise, mask):
        with torch.inference_mode():
            features = model.features(given.input_ids, given.attention_mask, given.pixel_values)
            context = model.context(model.adapted(features, mask), given.state, given.embodiment_id, mask)
            return model.integrate(context, noise).actions

    together = act(given, noise, given.attention_mask.bool())
    alone = [act(robot_inputs.rows(given, np.array([i]), views=2), noise[i : i + 1], None) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-6, rtol=1e-5)
    assert (act(given, noise, None) - torch.cat(alone)).abs().max() > 1e-4, "padding is seen without the mask"


def test_an_actor_answers_alike_in_any_company(samples, model, body, words):
    batch = samples.read(np.arange(4))
    one = actor.Actor(model, body, words)
    noise = taps.draw_noise(model, [5, 6, 7, 8])[:, 0]
    together = one.chunks(batch.frames, batch.state, batch.instruction, noise)
    alone = one.chunks(batch.frames[2:3], batch.state[2:3], batch.instruction[2:3], noise[2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)


def test_an_actor_is_a_simulator_policy(samples, model, body, words):
    frames = samples.read(np.arange(2)).frames
    query = simulator.Query(
        frames, np.zeros((2, 4), np.float32), ("reach the dot",) * 2, np.arange(2), np.zeros(2, int)
    )
    chunks = actor.Actor(model, body, words)(query)
    assert chunks.shape == (2, body.transform.horizon, 4)
    assert np.abs(chunks[0] - chunks[1]).max() > 0, "each episode has noise of its own"
    turned = dataclasses.replace(body, transform=dataclasses.replace(body.transform, video_keys=("side", "top")))
    crossed = dataclasses.replace(query, frames=frames[:, ::-1])
    np.testing.assert_array_equal(actor.Actor(model, turned, words)(crossed), chunks)


def test_times_follow_the_shifted_beta():
    drawn = flow.times(100_000, torch.Generator().manual_seed(0))
    assert drawn.min() > -0.0011 and drawn.max() <= 1  # noqa: PT018
    assert float(drawn.mean()) == pytest.approx((0.999 - 0.6) / 0.999, abs=2e-3), "Beta(1.5, 1) has mean 0.6"


def test_the_flow_loss_is_that_of_the_official_formula(model, samples, preparer):
    batch = samples.read(np.arange(2))
    given = robot_inputs.rows(preparer.prepare(batch.frames, batch.state, batch.instruction), np.arange(2), views=2)
    actions = torch.from_numpy(batch.actions)
    with torch.no_grad():
        adapted = model.adapted(model.features(given.input_ids, given.attention_mask, given.pixel_values))
        context = model.context(adapted, given.state, given.embodiment_id)
        found = flow.loss(model, context, actions, draws=1, generator=torch.Generator().manual_seed(3))
        generator = torch.Generator().manual_seed(3)
        target = torch.nn.functional.pad(actions, (0, model.config.head.action_dim - 4))
        noise = torch.randn(target.shape, generator=generator)
        t = flow.times(2, generator)
        x = (1 - t)[:, None, None] * noise + t[:, None, None] * target
        velocity = model.head.velocity(context, x, (t * 1000).long())
    mask = torch.zeros_like(target)
    mask[..., :4] = 1
    torch.testing.assert_close(found, (mask * (velocity - target + noise) ** 2).sum() / mask.sum())


def test_sight_loses_nothing_over_what_is_out_of_sight_or_unknown():
    eye = sight.Sight(8, 4, views=1, objects=1)
    tokens = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    inside, outside = torch.full((2, 1, 1, 2), 0.4), torch.full((2, 1, 1, 2), 1.4)
    unknown = torch.full((2, 1, 3), float("nan"))
    assert all(value == 0 for value in eye.loss(tokens, outside, unknown).values())
    assert all(value > 0 for value in eye.loss(tokens, inside, torch.ones(2, 1, 3)).values())
    half = eye.loss(tokens, torch.cat([inside[:1], outside[:1]]), unknown)
    torch.testing.assert_close(half["found"], eye.loss(tokens[:1], inside[:1], unknown[:1])["found"])


def test_frozen_parts_do_not_move(samples, preparer, model):
    copy = Groot(model.config)
    copy.load_state_dict(model.state_dict())
    tune = robot_trainees.Tune(projector=False)
    trainee = robot_trainees.FlowTrainee(copy, preparer, samples, robot_trainees.Recipe(draws=1), tune=tune)
    before = {name: value.clone() for name, value in copy.state_dict().items()}
    (phase,) = trainee.phases(robot_trainees.Course(1, 2, 1e-2))
    optimizer = phases.make_optimizer(phase)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    sum(phase.loss(0).values()).backward()
    optimizer.step()
    moved = {name for name, value in copy.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in moved} == {"model", "vlln", "vl_self_attention", "future_tokens"}
    assert all(name.startswith("head.") for name in moved)


def run(folder, out, *extra):
    arguments = ["--task", "robot", "--dataset", str(folder), "--out", str(out), "--vision-steps", "2", "--steps", "3"]
    posttrain.main([*arguments, "--batch", "2", "--episodes", "0", "--threads", "1", "--save-every", "1", *extra])


def test_the_command_makes_a_teacher_that_the_same_code_loads(folder, tmp_path):
    run(folder, tmp_path / "a")
    account = json.loads((tmp_path / "a/provenance.json").read_text())
    assert account["provenance"] == "stand-in"
    assert set(account["measured"]) == {"action_r2", "action_r2_shuffled_images"}
    assert provenance.measured(tmp_path / "a") == account["measured"]
    model = checkpoint.load(tmp_path / "a", dtype=torch.float32)
    assert model.config.tile == 128
    assert tokenizer.load(tmp_path / "a").encode("reach the dot")


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_statistics_of_another_robot_stop_it_before_it_trains(folder, body, tmp_path, capsys, factor):
    embodiments.save(tmp_path / "other.json", body)
    content = json.loads((tmp_path / "other.json").read_text())
    for tag in content.values():
        for values in tag["statistics"]["state"].values():
            values |= {name: [factor * x for x in numbers] for name, numbers in values.items()}
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "a", "--metadata", str(tmp_path / "other.json"))
    assert stop.value.code == 2
    assert "other.json" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_killed_run_goes_on_bit_for_bit(folder, tmp_path, monkeypatch):
    run(folder, tmp_path / "whole")
    update, count = phases.Run._update, 0

    def die(self, phase, optimizer):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return update(self, phase, optimizer)

    monkeypatch.setattr(phases.Run, "_update", die)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "killed")
    monkeypatch.setattr(phases.Run, "_update", update)
    run(folder, tmp_path / "killed", "--resume")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


def test_a_stand_in_can_be_trained_on_with_its_own_embodiment(folder, tmp_path):
    run(folder, tmp_path / "a")
    extra = ("--teacher", str(tmp_path / "a"), "--tune.llm", "--tune.visual")
    run(folder, tmp_path / "b", *extra)
    account = json.loads((tmp_path / "b/provenance.json").read_text())
    assert account["provenance"] == "stand-in"
    assert account["from"]["digest"] == standin.resolve(tmp_path / "a").digest
    assert account["licence"] == "Apache-2.0"
    metadata = [(tmp_path / name / robot_request.METADATA).read_text() for name in "ab"]
    assert metadata[0] == metadata[1]
    assert standin.resolve(tmp_path / "b").digest != account["from"]["digest"]


def test_without_labels_the_stand_in_cannot_learn_to_see(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(write(tmp_path / "bare", labels=False), tmp_path / "out")
    assert "bridge.demonstrations" in capsys.readouterr().err


def test_a_missing_dataset_names_the_command_that_records_one(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "nowhere", tmp_path / "out")
    assert stop.value.code == 2
    assert "python -m bridge.demonstrations" in capsys.readouterr().err
