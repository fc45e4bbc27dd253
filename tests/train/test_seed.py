"""The original student of ARC's grids: what it is given, what each mistake changes, and the real command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bridge import arc, store
from student_jax import config as student_config
from student_jax import presets
from student_jax.student import Student
from train import checkpoint, config, data, main, seed, seed_tokens, stages


@pytest.fixture(scope="module")
def reader(stored):
    return store.open(stored)


@pytest.fixture(scope="module")
def source(reader):
    return seed_tokens.Tokens(reader, "train", cache_bytes=1e9)


@pytest.fixture(scope="module")
def student(source):
    batch = source.read(np.arange(1))
    tokens, width = batch["tokens"].shape[1] // seed_tokens.FRAMES, batch["tokens"].shape[2]
    target = student_config.Target(width=width, grid=round(tokens**0.5))
    return Student(presets.seed("tiny", target), rngs=nnx.Rngs(0))


def given(source, position):
    """(tokens, mask) of one query."""
    batch = source.read(np.array([position]))
    return jnp.asarray(batch["tokens"], jnp.float32), jnp.asarray(batch["mask"])


def run(stored, out, *extra):
    given = ["--store", str(stored), "--out", str(out), "--preset", "tiny", "--stage", "end-to-end", "--steps", "2"]
    quick = ["--batch", "2", "--host-devices", "1", "--share-every", "0", "--eval-every", "2"]
    return main.main([*given, *quick, "--baseline", "seed", *extra])


def test_as_it_was_it_has_about_forty_eight_million_values():
    made = nnx.eval_shape(lambda: Student(presets.seed("sage_48m", student_config.Target(2048, 16)), rngs=nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(made, nnx.Param)))
    assert 40e6 < count <= 48.5e6


def test_a_query_is_asked_without_its_answer(reader, source):
    """The frames of a query are those of the other pairs and its own input: never its output."""
    tasks, tokens = {task.id: task for task in arc.splits(1)["train"]}, source.tokens
    cells = {}
    for record in reader.records("train"):
        first, row = int(reader.starts["image"][record]), int(reader.starts["frame"][record])
        for frame in range(int(reader.counts["frame"][record])):
            cells[first + frame * tokens] = reader.read("cells", np.array([row + frame]), 1)[0, 0]
    seen = 0
    for one in source.asked:
        shown = [arc.grid(cells[start]) for start in one.frames]
        pairs = (*tasks[one.task].train, *tasks[one.task].test)
        own = [pair for pair in pairs if np.array_equal(pair.input, shown[-1])]
        assert any(np.array_equal(pair.output, arc.grid(one.answer)) for pair in own)
        seen += any(np.array_equal(grid, arc.grid(one.answer)) for grid in shown[1:-1:2])
        assert len(one.frames) <= seed_tokens.FRAMES
    assert seen < len(source.asked) / 4, "an output that another pair happens to share is rare"


def test_tokens_lie_in_their_frames_and_the_rest_is_masked(reader, source):
    fewest = min(range(len(source)), key=lambda i: len(source.asked[i].frames))
    batch, one = source.read(np.array([fewest])), source.asked[fewest]
    there = len(one.frames) * source.tokens
    assert batch["mask"][0].sum() == there
    expected = reader.read("image_tokens", np.array(one.frames), source.tokens)
    found = batch["tokens"][0, :there].reshape(expected.shape)
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))


def test_reading_from_disk_equals_reading_from_memory(reader, source):
    disk = seed_tokens.Tokens(reader, "train", cache_bytes=0.0)
    for name, value in source.read(np.arange(3)).items():
        np.testing.assert_array_equal(np.asarray(disk.read(np.arange(3))[name], np.float32), np.float32(value))


def test_training_never_opens_the_test_split(reader):
    with pytest.raises(data.DataError, match=r"eval\.benchmark"):
        seed_tokens.Tokens(reader, "test", cache_bytes=0.0)


def test_padding_counts_as_colour_nought_only_by_mistake():
    answers = np.full((1, 30, 30), arc.OUTSIDE, np.uint8)
    answers[0, :2, :2] = 3
    answers = jnp.asarray(answers)
    sure = jnp.zeros((1, 30, 30, 10)).at[:, :2, :2, 3].set(50.0)
    assert float(seed.cross_entropy(sure, answers, padded=False)[0]) == pytest.approx(0.0, abs=1e-6)
    expected = np.log(10) * (900 - 4) / 900
    assert float(seed.cross_entropy(sure, answers, padded=True)[0]) == pytest.approx(expected, rel=1e-5)
    black = jnp.zeros((1, 30, 30, 10)).at[..., 0].set(50.0)
    assert float(seed.cross_entropy(black, answers, padded=True)[0]) < 1.0, "an all-black picture looks nearly right"
    assert float(seed.cross_entropy(black, answers, padded=False)[0]) > 40


def test_a_sum_over_channels_is_so_many_times_the_mean():
    told, target = jnp.ones((1, 64)), 2 * jnp.ones((1, 64))
    once, often = (float(seed.distance(told, target, summed=flag)[0]) for flag in (False, True))
    assert (once, often) == (pytest.approx(1.0), pytest.approx(64.0))


@pytest.mark.parametrize("mistakes", [(), ("projector",)])
def test_a_projector_that_is_not_trained_is_a_mistake(mistakes):
    options = config.Config(stage="end-to-end", instead=config.Baseline("seed", mistakes))
    stage = stages.select(options, "arc")
    assert stage.trains(("seed", "tell", "kernel")) is not bool(mistakes)
    assert stage.trains(("seed", "project", "kernel"))


def test_dropout_is_for_training_alone(student, source):
    calm, again, drawn = (student.seed(*given(source, 0), key)[0] for key in (None, None, jax.random.key(1)))
    np.testing.assert_array_equal(calm, again)
    assert not np.array_equal(calm, drawn)


def test_what_is_masked_says_nothing(student, source):
    tokens, mask = given(source, min(range(len(source)), key=lambda i: len(source.asked[i].frames)))
    assert not mask.all(), "some query of the small store has fewer than four demonstrations"
    loud = jnp.where(mask[..., None], tokens, 1e3)
    for one, other in zip(*(student.seed(each, mask) for each in (tokens, loud)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_command_trains_it_and_it_can_be_loaded(stored, tmp_path):
    out = tmp_path / "seed"
    assert run(stored, out, "--mistakes", "padding", "sums") == 0
    again, _ = checkpoint.load_student(out)
    assert list(again.modules) == []
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"likelihood", "cell_accuracy", "exact"} <= set(rows[-1])


def test_it_is_refused_where_it_makes_no_sense(stored, robot_stored, tmp_path, capsys):
    assert run(robot_stored, tmp_path / "robot") == 2
    assert "store of ARC tasks" in capsys.readouterr().err
    assert main.main(["--store", str(stored), "--out", str(tmp_path / "x"), "--mistakes", "sums"]) == 2
    assert "--baseline seed" in capsys.readouterr().err
