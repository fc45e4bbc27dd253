"""Orchestration: only the H-module moves, what it is taught, and the real command from a trained student on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bridge import store
from student_jax.sage import orchestrator
from student_jax.student import Student
from train import (
    checkpoint,
    config,
    disturb,
    losses,
    main,
    orchestra,
    orchestra_scores,
    robot,
    sources,
    stages,
    state,
    vision,
    witness,
)

KEY = jax.random.key(0)


def run(stored, out, *extra):
    arguments = ["--store", str(stored), "--out", str(out), "--preset", "tiny", "--host-devices", "2", "--batch", "4"]
    return main.main([*arguments, "--eval-every", "2", "--share-every", "0", "--log-every", "1", *extra])


@pytest.fixture(scope="module")
def acting(robot_stored, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "acting"
    assert run(robot_stored, out, "--stage", "end-to-end", "--steps", "2", "--loss.objects", "0") == 0
    return out


@pytest.fixture(scope="module")
def orchestrated(robot_stored, acting, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "orchestrated"
    chosen = ("--stage", "orchestration", "--init", str(acting), "--steps", "4", "--loss.objects", "0")
    assert run(robot_stored, out, *chosen) == 0
    return out


@pytest.fixture(scope="module")
def student(orchestrated):
    return checkpoint.load_student(orchestrated)[0]


@pytest.fixture(scope="module")
def batch(robot_stored):
    options = config.Config(stage="orchestration", preset="tiny", loss=config.LossWeights(objects=0.0))
    material = sources.open_material(store.open(robot_stored), stages.select(options, "robot"), options, None)
    return jax.tree.map(jnp.asarray, material.sources.train.read(np.arange(8)))


def leaves(student, name):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(getattr(student, name))))


def test_not_one_leaf_of_the_components_moves(acting, orchestrated):
    before, after = checkpoint.load_student(acting)[0], checkpoint.load_student(orchestrated, "last", "params")[0]
    for name in ("vision", "language", "control"):
        for old, new in zip(leaves(before, name), leaves(after, name), strict=True):
            np.testing.assert_array_equal(old, new)
    fresh = Student(after.config, rngs=nnx.Rngs(0))
    moved = [
        not np.array_equal(*pair) for pair in zip(leaves(fresh, "h_module"), leaves(after, "h_module"), strict=True)
    ]
    assert np.mean(moved) > 0.5


def test_what_a_validation_says(orchestrated):
    rows = [json.loads(line) for line in (orchestrated / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    assert {"loss/saliency", "loss/foresight", "loss/confidence", "loss/actions", "loss/fused"} <= names
    assert {
        "action_r2",
        "action_r2_planned",
        "steps_saved",
        "saliency_kl",
        "saliency_overlap",
        "confidence_r2",
    } <= names


def test_what_the_host_judges_by_lies_beside_the_weights(orchestrated):
    judge = witness.load(orchestrated)
    assert len(judge.cameras) == len(judge.usual) == 2
    assert judge.prior.shape == (3,)
    assert np.all((judge.prior >= 0) & (judge.prior <= 1))


def test_end_to_end_goes_on_with_the_h_module(robot_stored, orchestrated, tmp_path):
    chosen = ("--stage", "end-to-end", "--init", str(orchestrated), "--steps", "2", "--loss.objects", "0")
    assert run(robot_stored, tmp_path / "on", *chosen) == 0
    student, found = checkpoint.load_student(tmp_path / "on")
    assert found.student.h_module
    assert hasattr(student, "h_module")
    assert (tmp_path / "on" / witness.FILE).is_file()


def test_saliency_that_equals_the_teachers_costs_nothing(batch):
    teacher = batch["saliency"].astype(jnp.float32)
    assert float(jnp.abs(orchestra.saliency_divergence(teacher, teacher)).max()) < 1e-5
    np.testing.assert_allclose(orchestra_scores.overlap(teacher, teacher), 1.0)
    turned = jnp.roll(teacher, 7, axis=2)
    assert float(orchestra.saliency_divergence(turned, teacher).min()) > 0.01


def test_steps_are_taken_per_sample():
    states = [{"x": jnp.full((3, 2), float(k))} for k in range(4)]
    assert robot.after(states, jnp.array([2, 0, 3]))["x"][:, 0].tolist() == [2, 0, 3]
    assert robot.after(states, None)["x"][:, 0].tolist() == [3, 3, 3]


def test_steps_are_sampled_from_all_that_are_possible(student, batch):
    scene = disturb.calm(vision.inputs(batch), 3, trust=0.9)
    depth = orchestra.sampled(student, scene, KEY)
    found = robot.unroll(student, batch, KEY, until="control", scene=scene, depth=depth)
    for name, module in student.modules.items():
        taken = np.asarray(found.depth[name])
        assert taken.min() >= 0
        assert taken.max() <= module.description.max_steps
    assert any(len(set(np.asarray(steps).tolist())) > 1 for steps in found.depth.values())


def test_foresight_is_asked_about_the_steps_that_were_taken(student, batch):
    scene = disturb.calm(vision.inputs(batch), 3, trust=0.9)
    depth = orchestra.sampled(student, scene, KEY)
    found = robot.unroll(student, batch, KEY, until="control", scene=scene, depth=depth)
    index = np.asarray(orchestra.passed(student, found))
    steps = orchestrator.choices(student, scene.inputs).steps.reshape(-1, student.control.description.max_steps + 1, 3)
    for row, choice in enumerate(index):
        assert steps[choice, 0, 0] == found.depth["vision"][row]
        assert steps[choice, 0, 1] == found.depth["language"][row]


@pytest.mark.parametrize("terms", [orchestra.terms, orchestra.frozen_terms])
def test_gradients_reach_every_leaf_of_the_h_module(student, batch, terms):
    graph, params, frozen = state.partition(student, lambda path: path[0] == "h_module")
    weights = config.LossWeights()

    def total(params):
        named, _ = terms(state.merge(graph, params, frozen), batch, KEY)
        return sum(getattr(weights, name) * losses.mean(term) for name, term in named.items())

    gradient = checkpoint.named_leaves(jax.grad(total)(params))
    assert not [name for name, leaf in gradient.items() if not np.abs(np.asarray(leaf)).max() > 0]


def test_what_is_frozen_has_no_loss_that_reaches_nothing(student, batch):
    graph, params, frozen = state.partition(student, lambda path: path[0] == "h_module")
    named, _ = orchestra.frozen_terms(student, batch, KEY)
    for name in named:
        alone = jax.grad(lambda params, name=name: losses.mean(
            orchestra.frozen_terms(state.merge(graph, params, frozen), batch, KEY)[0][name]))(params)  # fmt: skip
        moved = max(float(np.abs(np.asarray(leaf)).max()) for leaf in jax.tree.leaves(alone))
        assert moved > 0 or not float(losses.mean(named[name])), name


def test_pairs_are_one_stride_apart_in_one_episode():
    episode, row = np.array([0, 0, 0, 1, 1]), np.array([0, 4, 8, 0, 8])
    assert witness.consecutive(episode, row, 4).tolist() == [[0, 1], [1, 2]]


def test_a_paraphrase_differs_and_keeps_the_words():
    assert witness.paraphrase("open the drawer") == "open drawer"
    assert witness.paraphrase("make coffee") == "please make coffee"
