"""Small puzzles as training material: batches follow from positions, answers are never shown, scores mean what they
say; the real command learns, resumes and is reported."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bridge import arc, families
from student_jax.student import Student
from train import checkpoint, config, data, grid, losses, main, puzzles, stages, state

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def source():
    return puzzles.Episodes("train")


@pytest.fixture(scope="module")
def batch(source):
    return jax.tree.map(jnp.asarray, source.read(np.arange(6)))


@pytest.fixture(scope="module")
def student():
    return Student(puzzles.student("tiny"), rngs=nnx.Rngs(0))


def test_larger_puzzles_are_another_store():
    read = puzzles.Episodes("train", 10).read(np.arange(32))
    assert read["video"].shape == (32, 8, 1, 40, 40, 3)
    sides = (read["answers"] != arc.OUTSIDE).sum(axis=(2, 3)).max()
    assert sides > 36
    assert (puzzles.size("families"), puzzles.size("families-10")) == (6, 10)
    assert not any(map(puzzles.size, ("familiesx", "runs/families-10", "families-x")))
    with pytest.raises(config.ConfigError, match="6 to 30"):
        puzzles.size("families-5")
    assert puzzles.Generated(10).manifest.digest != puzzles.Generated().manifest.digest


def test_a_batch_is_a_function_of_its_positions(source):
    one, again = source.read(np.array([5, 70])), puzzles.Episodes("train").read(np.array([70, 5]))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name][::-1])
    other = puzzles.Episodes("validation").read(np.array([5, 70]))
    assert (one["video"] != other["video"]).any()


def test_what_is_seen_is_what_was_drawn(source):
    read = source.read(np.array([3]))
    cells = source.cells(3)
    assert read["video"].shape == (1, 8, 1, 24, 24, 3)
    np.testing.assert_array_equal(read["video"][0, :, 0, 2::4, 2::4], arc.PALETTE[cells])
    np.testing.assert_array_equal(read["answers"][0], cells[1::2])
    assert families.FAMILIES[int(read["family"][0])].name == "keep"


def test_families_take_turns_and_training_never_opens_the_test_split(source):
    found = source.read(np.arange(32))["family"]
    assert np.bincount(found).tolist() == [2] * 16
    with pytest.raises(data.DataError, match=r"eval\.benchmark"):
        puzzles.Episodes("test")


def test_blanked_answers_change_no_logit(student, batch):
    blank = batch | {"answers": jnp.zeros_like(batch["answers"]), "family": jnp.zeros_like(batch["family"])}
    told = lambda b: student.grid.output(grid.unroll(student, b, KEY)[-1])["grid_logits"]  # noqa: E731
    np.testing.assert_array_equal(told(batch), told(blank))


def test_a_perfect_student_costs_nothing_and_is_counted_as_one(batch):
    answers = batch["answers"].astype(jnp.int32)
    logits = 50.0 * jax.nn.one_hot(answers, 11)
    assert float(grid.cross_entropy(logits, answers).max()) < 1e-6
    assert grid.right(logits, answers).all()
    wrong = logits.at[0, 0, 0, 0].set(jnp.roll(logits[0, 0, 0, 0], 1))
    assert (~grid.right(wrong, answers)).sum() == 1
    outside = answers.at[1, 1, 5, 5].set(jnp.where(answers[1, 1, 5, 5] == 10, 0, 10))
    assert not grid.right(logits, outside)[1, 1], "a cell too many is a wrong size"


def test_doubt_is_cheap_where_it_is_right():
    logit, wrong = jnp.array([[5.0, -5.0]]), jnp.array([[True, False]])
    assert float(grid.surprise(logit, wrong).max()) < 0.01
    assert float(grid.surprise(logit, ~wrong).min()) > 4.9


def test_scores_by_family_and_padding():
    exact = np.zeros((2, 4, 4), bool)
    exact[1, 0] = True
    part = {
        "exact": exact, "size": np.ones((4, 4), bool), "cells": np.full((4, 4), 0.5), "doubt": np.full((4, 4), 0.5),
        "surprise": np.zeros((4, 4)), "family": np.array([0, 1, 1, 2]),
        "asked": np.broadcast_to(np.array([True, True, True, False])[:, None], (4, 4)),
    }  # fmt: skip
    summary = grid.by_family([part])
    assert summary["likelihood"] == 1
    assert summary["exact"] == pytest.approx(1 / 3)
    assert summary["exact/recolour"] == 1
    assert summary["exact/swap"] == 0
    assert "exact/permute" not in summary, "it was padding alone"
    assert summary["learned"] == 1
    assert summary["exact/step_0"] == 0


def test_every_leaf_that_trains_gets_a_gradient(batch):
    made = Student(puzzles.student("tiny"), rngs=nnx.Rngs(0))
    for head in (made.grid.out, made.grid.judge.out, made.vision.gate):
        leaf = head.kernel if hasattr(head, "kernel") else head
        leaf[...] = 0.1 * jax.random.normal(jax.random.key(1), leaf.shape)
    stage = stages.select(config.Config(stage="end-to-end"), "families")
    graph, params, frozen = state.partition(made, stage.trains)

    def total(params):
        named, _ = stage.terms(state.merge(graph, params, frozen), batch, KEY)
        return losses.mean(named["cells"]) + losses.mean(named["energy"])

    gradient = checkpoint.named_leaves(jax.grad(total)(params))
    assert not [name for name, leaf in gradient.items() if not np.abs(np.asarray(leaf)).max() > 0]


def run(out, *extra):
    fixed = ["--stage", "end-to-end", "--store", "families", "--preset", "tiny", "--host-devices", "2", "--batch", "4"]
    return main.main(
        [*fixed, "--out", str(out), "--eval-every", "2", "--eval-frames", "16", "--share-every", "0", *extra]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "families"
    assert run(out, "--steps", "4") == 0
    return out


def test_a_resumed_run_equals_an_unbroken_one(trained, tmp_path):
    assert run(tmp_path / "broken", "--steps", "4", "--stop-after", "2") == 0
    assert run(tmp_path / "broken", "--steps", "4", "--resume") == 0
    one, other = (checkpoint.load_student(path, "last", "params")[0] for path in (trained, tmp_path / "broken"))
    for a, b in zip(*(jax.tree.leaves(nnx.to_pure_dict(nnx.state(s))) for s in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_log_tells_of_each_family(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    assert {"loss/cells", "exact", "learned", "exact/recolour", "exact/double", "size_accuracy"} <= names
