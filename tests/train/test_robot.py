"""Robot stages: what is trained, what stays, what a validation means; the real command for a few steps and a resume."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bridge import store
from student_jax.student import Student
from train import (
    checkpoint,
    config,
    data,
    losses,
    main,
    record,
    robot,
    robot_data,
    robot_scores,
    sources,
    stages,
    state,
    words,
)


@pytest.fixture(scope="module")
def reader(robot_stored):
    return store.open(robot_stored)


@pytest.fixture(scope="module")
def material(reader):
    options = config.Config(stage="end-to-end", preset="tiny")
    return sources.open_material(reader, stages.select(options, "robot"), options, None)


@pytest.fixture(scope="module")
def student(material):
    made = Student(material.settings, rngs=nnx.Rngs(0))
    graph, params, frozen = state.partition(made, lambda path: True)
    statistics = jax.tree.map(jnp.asarray, robot.statistics(material.sources.train))
    return state.merge(graph, params, state.replace_leaves(frozen, statistics))


@pytest.fixture(scope="module")
def batch(material):
    return jax.tree.map(jnp.asarray, material.sources.train.read(np.arange(6)))


KEY = jax.random.key(0)


def test_observations_are_what_the_store_holds(reader, material):
    source = material.sources.validation
    read = source.read(np.array([1, 0]))
    row = reader.records("validation")[1]
    np.testing.assert_array_equal(read["video"][0, 0], reader.record("frames", row))
    np.testing.assert_array_equal(read["fused_tokens"][0].reshape(32, -1), reader.record("fused_tokens", row))
    np.testing.assert_array_equal(read["actions"][0], reader.record("actions", row)[0])
    assert read["tokens"].shape == (2, material.settings.language.length)
    assert (read["tokens"][0] != read["tokens"][1]).any(), "they were asked different things"


def test_reading_from_disk_equals_reading_from_memory(reader, material):
    options = config.Config(stage="end-to-end", preset="tiny", launch=config.Launch(cache_gib=0.0))
    other = sources.open_material(reader, stages.select(options, "robot"), options, material.words)
    at = np.array([3, 1, 1])
    for name, value in material.sources.train.read(at).items():
        np.testing.assert_array_equal(other.sources.train.read(at)[name], value, err_msg=name)
    assert material.sources.train.cached
    assert not other.sources.train.cached


def test_training_never_opens_the_test_split(reader, material):
    with pytest.raises(data.DataError, match=r"eval\.benchmark"):
        robot_data.Observations(reader, "test", features=(), text=(np.zeros(1), np.zeros(1)), cache_bytes=0.0)


def test_the_tokenizer_never_sees_the_held_out_splits(reader, monkeypatch):
    told = []
    monkeypatch.setattr(robot_data, "instructions", lambda reader: ["of the training split", "of another split"])
    monkeypatch.setattr(reader, "read", lambda *_: np.zeros((4, 1), np.int32))
    trained = words.train
    monkeypatch.setattr(words, "train", lambda said, size, *, least: told.extend(said) or trained(said, size))
    robot_data.vocabulary(reader, 300)
    assert told == ["of the training split"]


@pytest.mark.parametrize("count", [4, 30])
def test_a_student_has_room_for_the_longest_instruction(reader, monkeypatch, count):
    said = " ".join(f"word{index}" for index in range(count))
    monkeypatch.setattr(robot_data, "instructions", lambda reader: [said, said])
    options = config.Config(stage="end-to-end", preset="tiny")
    made = sources.open_material(reader, stages.select(options, "robot"), options, None)
    assert made.settings.language.length >= made.words.longest([said])
    assert made.settings.language.length % 4 == 0


def test_no_label_reaches_the_student(student, batch):
    """Every teacher value and label blanked: the same actions, bit for bit."""
    blank = {name: jnp.zeros_like(value) for name, value in batch.items() if name in (*robot.WORDS, *robot.SIGHT)}
    blank |= {name: jnp.zeros_like(batch[name]) for name in ("actions", "demonstration", "pixels")}
    act = lambda batch: robot.unroll(student, batch, KEY, until="control").states["control"][-1].x["actions"]  # noqa: E731
    np.testing.assert_array_equal(act(batch), act(batch | blank))


def test_a_teacher_who_says_what_the_student_says_is_met_exactly(student, batch):
    found = robot.unroll(student, batch, KEY, until="control")
    said = found.states["control"][-1].x["actions"].reshape(6, -1, 4, 2)[:, :-1]
    order = jnp.argsort(found.draws)  # the same key chooses the same draws again
    perfect = batch | {"actions": said[:, order], "noise": batch["noise"]}
    summary = robot_scores.summarise([jax.tree.map(np.asarray, robot_scores.measure(student, perfect, KEY))])
    assert summary["action_r2"] == pytest.approx(1, abs=1e-6)
    assert summary["residual_r2"] == pytest.approx(1, abs=1e-6)


def test_each_start_learns_its_own_target(student, batch, monkeypatch):
    """Every term against its definition: drawn x_0 the teacher, x_0 = 0 what was shown or else the teacher's mean."""
    monkeypatch.setattr(robot, "DRAWS", 2)  # of 4: the mean is over all of them
    shown, valid = np.arange(6) % 2 == 0, np.arange(6) < 5
    given = batch | {"shown": jnp.asarray(shown), "valid": jnp.asarray(valid)}
    found = robot.unroll(student, given, KEY, until="control")
    named, _ = robot.acting(student, given, found)
    limits = np.asarray(student.control.low[...]), np.asarray(student.control.high[...])
    teacher, demonstrated = (np.clip(np.asarray(batch[name]), *limits) for name in ("actions", "demonstration"))
    taught = np.where(shown[:, None, None], demonstrated, teacher.mean(axis=1))
    target = np.concatenate([teacher[:, np.asarray(found.draws)], taught[:, None]], axis=1)
    states = found.states["control"]
    error = [np.square(np.asarray(s.x["actions"]).reshape(target.shape) - target).mean(axis=(2, 3)) for s in states]
    wanted = {
        "actions": [e[valid, :-1].mean() for e in error],
        "demonstration": [e[valid & shown, -1].sum() / 5 for e in error],
        "imitation": [e[valid & ~shown, -1].sum() / 5 for e in error],
        "energy": [huber(student.control.log_error(s), e)[valid].mean() for s, e in zip(states, error, strict=True)],
    }
    for name, by_step in wanted.items():
        expected = np.dot(np.array([1, 2, 3]) / 6, by_step)
        np.testing.assert_allclose(losses.mean(named[name]), expected, rtol=1e-5, err_msg=name)


def huber(predicted, error):
    miss = np.abs(np.asarray(predicted).reshape(error.shape) - np.log(error))
    return np.where(miss <= 1, 0.5 * miss**2, miss - 0.5)


def test_the_last_start_is_zero_and_scored_by_itself(student, batch):
    zero = robot.unroll(student, batch | {"noise": jnp.zeros_like(batch["noise"])}, KEY, until="control")
    own = np.asarray(zero.states["control"][-1].x["actions"]).reshape(6, -1, 4, 2)[:, 0]
    mixed = batch | {"shown": jnp.arange(6) < 3}
    part = jax.tree.map(np.asarray, robot_scores.measure(student, mixed, KEY))
    taught = np.asarray(robot.taught(student.control, mixed))
    np.testing.assert_allclose(part["own_sse"][-1], np.square(own - taught).sum(), rtol=1e-4)
    np.testing.assert_allclose(part["error"][:, -1], np.square(own - taught).mean(axis=(1, 2)), rtol=1e-3)
    energies = np.asarray(zero.states["control"][-1].energy).reshape(6, -1)[:, 0]
    np.testing.assert_allclose(part["energy"][:, -1], energies, rtol=1e-4)


@pytest.mark.parametrize("chosen", [{"stage": "end-to-end"}, {"stage": "components", "component": "control"}])
def test_where_demonstrations_count_for_nothing_the_teachers_mean_is_learned_and_scored(student, batch, chosen):
    silent = stages.select(config.Config(**chosen, loss=config.LossWeights(demonstration=0.0)), "robot")
    plain = stages.select(config.Config(**chosen), "robot")
    mean = np.asarray(robot.limited(student.control, batch["actions"]).mean(axis=1))
    assert losses.mean(silent.terms(student, batch, KEY)[0]["demonstration"]) == 0
    assert losses.mean(plain.terms(student, batch, KEY)[0]["imitation"]) == 0
    scored = silent.measure(student, batch, KEY)["own_total"]
    np.testing.assert_allclose(scored, mean.sum(axis=(0, 1)), rtol=1e-4)
    assert np.abs(scored - plain.measure(student, batch, KEY)["own_total"]).max() > 1e-3


def test_a_padded_row_counts_for_nothing(student, batch):
    valid = jnp.arange(6) < 4
    poison = {name: batch[name].at[5].add(7) for name in ("actions", "demonstration", "noise")}
    few = jax.tree.map(np.asarray, robot_scores.measure(student, batch | {"valid": valid}, KEY))
    same = jax.tree.map(np.asarray, robot_scores.measure(student, batch | poison | {"valid": valid}, KEY))
    for name in ("sse", "square", "count", "own_square", "residual_sse"):
        np.testing.assert_allclose(few[name], same[name], rtol=1e-6, err_msg=name)


def test_scores_follow_their_definition():
    """Two draws: the student says the teacher's mean; all is explained but what depends on x_0."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(50, 2, 3, 2))
    said = np.broadcast_to(teacher.mean(axis=1, keepdims=True), teacher.shape)
    residual = teacher - teacher.mean(axis=1, keepdims=True)
    part = {
        "sse": np.array([np.square(said - teacher).sum()]),
        "residual_sse": np.array([np.square(residual).sum()]),
        "residual_square": np.square(residual).sum(),
        "own_sse": np.array([0.0]), "own_total": teacher[:, 0].sum((0, 1)), "own_count": 150,
        "own_square": np.square(teacher[:, 0]).sum(), "total": teacher.sum((0, 1, 2)),
        "square": np.square(teacher).sum(), "count": 300,
        "error": np.ones((50, 1)), "energy": np.ones((50, 1)), "valid": np.ones(50, bool),
        "vision_error": np.full(50, 0.25), "language_error": np.full(50, 0.5),
    }  # fmt: skip
    summary = robot_scores.summarise([part])
    assert summary["residual_r2"] == pytest.approx(0)
    total = np.square(teacher - teacher.mean((0, 1, 2))).sum()
    assert summary["action_r2"] == pytest.approx(1 - np.square(said - teacher).sum() / total)
    assert summary["own_r2"] == pytest.approx(1)
    assert summary["action_mse"] == pytest.approx(np.square(said - teacher).mean())
    found = {path: float(value) for path, value in robot.calibrate_all(summary).items()}
    assert found == {(name, "error_scale"): e for name, e in (("control", 1.0), ("vision", 0.25), ("language", 0.5))}


@pytest.mark.parametrize("component", ["language", "control"])
def test_a_component_sends_no_gradient_to_those_before_it(student, batch, component):
    stage = stages.STAGES["robot", "components", component]
    graph, params, frozen = state.partition(student, lambda path: True)

    def loss(params):
        named, _ = stage.terms(state.merge(graph, params, frozen), batch, KEY)
        return sum(losses.mean(term) for name, term in named.items() if name != "energy")

    gradient = jax.grad(loss)(params)
    sizes = {name: sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient[name])) for name in gradient}
    assert sizes[component] > 0
    assert all(size == 0 for name, size in sizes.items() if name != component)


def test_a_loss_of_weight_nought_sends_no_gradient():
    term = losses.places(jnp.zeros((1, 1, 1, 3)), jnp.full((1, 1, 1, 2), jnp.nan), jnp.ones(1, bool))
    assert jnp.isfinite(losses.mean(term)), "an object out of sight has no place"


def test_places_cost_nothing_at_the_truth_but_the_doubt_about_sight():
    truth = jnp.full((1, 2, 1, 2), 0.3)
    sure = jnp.concatenate([truth, jnp.full((1, 2, 1, 1), 30.0)], axis=-1)
    assert losses.mean(losses.places(sure, truth, jnp.ones(1, bool))) < 1e-6
    assert losses.mean(losses.places(sure, truth + 0.3, jnp.ones(1, bool))) > 0.1


def run(stored, out, *extra):
    arguments = ["--store", str(stored), "--out", str(out), "--preset", "tiny", "--host-devices", "2", "--batch", "4"]
    return main.main([*arguments, "--eval-every", "2", "--share-every", "2", "--log-every", "1", *extra])


@pytest.fixture(scope="module")
def trained(robot_stored, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run(robot_stored, out, "--stage", "end-to-end", "--steps", "4") == 0
    return out


def test_the_command_trains_everything_and_keeps_what_a_policy_needs(trained):
    student, _ = checkpoint.load_student(trained)
    assert {"vision", "language", "control"} == set(student.modules)
    assert (trained / "words.json").is_file()
    assert (trained / "embodiment.json").is_file()
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    assert {"loss/tokens", "loss/fused", "loss/text", "loss/actions", "loss/objects", "share/actions"} <= names
    assert {"action_r2", "residual_r2", "own_r2"} <= names
    assert all(float(module.error_scale[...]) != 1.0 for module in student.modules.values())


def test_a_resumed_run_equals_an_unbroken_one(robot_stored, trained, tmp_path):
    out = tmp_path / "broken"
    arguments = ("--stage", "end-to-end", "--steps", "4")
    assert run(robot_stored, out, *arguments, "--stop-after", "2") == 0
    assert run(robot_stored, out, *arguments, "--resume") == 0
    one, other = (checkpoint.load_student(path, "last", "params")[0] for path in (trained, out))
    for a, b in zip(*(jax.tree.leaves(nnx.to_pure_dict(nnx.state(s))) for s in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_of_another_objective_is_not_gone_on_with(trained, tmp_path):
    tree = json.loads((trained / record.FILE).read_text())
    assert tree.pop("objective") == record.OBJECTIVE
    (tmp_path / record.FILE).write_text(json.dumps(tree))
    with pytest.raises(config.ConfigError, match="objective: 1 -> 2"):
        record.begin(tmp_path, record.read(trained), resume=True)


def test_a_component_starts_from_another_run_and_leaves_the_rest_alone(robot_stored, trained, tmp_path):
    out = tmp_path / "control"
    chosen = ("--stage", "components", "--component", "control", "--init", str(trained), "--steps", "2")
    assert run(robot_stored, out, *chosen) == 0
    before, after = checkpoint.load_student(trained)[0], checkpoint.load_student(out, "last", "params")[0]
    for name in ("vision", "language"):
        old, new = (jax.tree.leaves(nnx.to_pure_dict(nnx.state(getattr(s, name), nnx.Param))) for s in (before, after))
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(
            *(jax.tree.leaves(nnx.to_pure_dict(nnx.state(s.control, nnx.Param))) for s in (before, after)), strict=True
        )
    ]
    assert any(moved)


def test_a_control_for_another_action_space_joins_the_same_vision_and_language(trained, make_robot_store, tmp_path):
    other = make_robot_store(tmp_path / "other", horizon=3, tag="another")
    out = tmp_path / "swapped"
    chosen = ("--stage", "components", "--component", "control", "--init", str(trained), "--steps", "2")
    assert run(other, out, *chosen) == 0
    before, after = checkpoint.load_student(trained)[0], checkpoint.load_student(out)[0]
    assert after.config.actions.horizon == 3
    assert (out / "embodiment.json").read_bytes() == (other / "embodiment.json").read_bytes()
    for name in ("vision", "language"):
        old, new = (jax.tree.leaves(nnx.to_pure_dict(nnx.state(getattr(s, name), nnx.Param))) for s in (before, after))
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_run_for_another_robot_is_no_beginning(robot_stored, tmp_path, capsys):
    before = tmp_path / "before"
    before.mkdir()
    (before / "embodiment.json").write_text('{"another": {}}')
    assert run(robot_stored, tmp_path / "on", "--stage", "end-to-end", "--init", str(before), "--steps", "2") == 2
    said = capsys.readouterr().err
    assert "is for another robot than --store (another -> dot)" in said
    assert f"--stage components --component control --init {before}" in said
    assert not (tmp_path / "on").exists()


def test_a_stage_for_robots_needs_a_store_of_one(stored, tmp_path, capsys):
    assert run(stored, tmp_path / "x", "--stage", "orchestration", "--steps", "2") == 2
    assert "'arc'" in capsys.readouterr().err
    assert run(stored, tmp_path / "x", "--stage", "end-to-end", "--steps", "2") == 2
    assert "there is cells" in capsys.readouterr().err
    assert not (tmp_path / "x").exists(), "what cannot be trained leaves no run behind"
