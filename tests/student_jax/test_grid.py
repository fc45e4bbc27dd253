"""The Grid IRP: sizes read from pixels, places counted from both ends, nothing asked is ever shown, the contract."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bridge import arc
from student_jax import config, conformance, irp, sizes
from student_jax.irps import extent, grid
from student_jax.student import Student

KEY = jax.random.key(0)
CELLS = 4
VISION = config.VisionConfig(
    canvas=16, patch=4, width=16, heads=2, mlp=32, stem_blocks=1, step_blocks=1, max_steps=1, dtype="float32"
)
GRID = sizes.GridConfig(
    cells=CELLS, width=24, heads=2, mlp=32, pair_blocks=1, step_blocks=1, max_steps=2, dtype="float32"
)


def frames(grids, pixels=4):
    """uint8 [f, s, s, 3], grids at the top left of a white canvas of CELLS x CELLS."""
    cells = np.full((len(grids), CELLS, CELLS), arc.OUTSIDE, np.uint8)
    for canvas, one in zip(cells, grids, strict=True):
        canvas[: one.shape[0], : one.shape[1]] = one
    return arc.PALETTE[cells].repeat(pixels, axis=1).repeat(pixels, axis=2)


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 10, rng.integers(1, CELLS + 1, 2)).astype(np.int8) for _ in range(count)]


def inputs(count=7, b=2, pixels=4):
    video = jnp.asarray(np.stack([frames(drawn(count, seed), pixels) for seed in range(b)])[:, :, None])
    none = jnp.zeros((b, 1), jnp.int32)
    return irp.Inputs(video, jnp.zeros((b, 1, 1)), none, none.astype(bool), jnp.ones((b, count, 1), bool))


@pytest.fixture(scope="module")
def student():
    made = Student(config.StudentConfig(VISION, config.Target(width=4, grid=4), grid=GRID), rngs=nnx.Rngs(0))
    for head in (made.grid.out, made.grid.judge.out):
        head.kernel[...] = 0.3 * jax.random.normal(jax.random.key(1), head.kernel.shape)
    return made


@pytest.fixture(scope="module")
def told(student):
    """Inputs -> logits after every step, [k, b, q, s, s, 11]."""

    @jax.jit
    def run(given):
        given = student.prepared(given, KEY, name="grid")
        states = irp.unroll(student.grid, given, KEY, student.grid.description.max_steps)
        return jnp.stack([student.grid.output(state)["grid_logits"] for state in states])

    return run


def test_sizes_are_read_from_the_pixels():
    grids = drawn(7)
    for pixels in (1, 4):
        video = jnp.asarray(frames(grids, pixels))[None, :, None]
        np.testing.assert_array_equal(extent.sizes(video, CELLS)[0], [one.shape for one in grids])
    with pytest.raises(ValueError, match="does not divide"):
        extent.sizes(jnp.zeros((1, 1, 1, 15, 16, 3), jnp.uint8), CELLS)


def test_places_count_from_both_ends():
    found = np.asarray(extent.places(jnp.array([[[2, 3]]]), 4, 4)).reshape(4, 4, 4)
    assert found[0, 0].tolist() == [0, 0, 1, 2]
    assert found[1, 2].tolist() == [1, 2, 0, 0]
    assert found[3, 3].tolist() == [3, 3, 5, 4], "beyond the end it counts on from the side"


@pytest.mark.parametrize("shape", [(2, 3), (4, 4), (3, 1)])
def test_images_are_the_squares_symmetries(shape):
    one = np.random.default_rng(0).integers(0, 10, shape)
    canvas = np.full((4, 4), -1)
    canvas[: shape[0], : shape[1]] = one
    index, inside = (np.asarray(part)[0, 0] for part in extent.images(jnp.array([[shape]]), 4, 1))
    wanted = {"half_turn": one[::-1, ::-1], "flip_horizontal": one[:, ::-1], "flip_vertical": one[::-1],
              "transpose": one.T, "anti_transpose": one[::-1, ::-1].T, "quarter": np.rot90(one),
              "three_quarters": np.rot90(one, -1)}  # fmt: skip
    for name, at, known in zip(extent.IMAGES, index, inside, strict=True):
        found = np.where(known, canvas.reshape(-1)[at], -1).reshape(4, 4)
        rows, columns = (int((found >= 0).any(axis=axis).sum()) for axis in (1, 0))
        np.testing.assert_array_equal(found[:rows, :columns], wanted[name], err_msg=name)


def test_within_a_full_budget_it_says_what_it_was_trained_to_say(student):
    """Nothing teaches its vision an energy, so that none may stop it or choose an earlier state."""
    given = inputs()
    misled = nnx.clone(student)
    misled.vision.error_out.bias[...] = jnp.full_like(misled.vision.error_out.bias[...], 9.0)
    said = misled(given, jnp.full(2, 1e9), jnp.ones((2, 2)), KEY)
    states = irp.unroll(misled.grid, misled.prepared(given, KEY, name="grid"), KEY, misled.grid.description.max_steps)
    best = jnp.argmin(jnp.stack([state.energy for state in states]), axis=0)
    logits = jnp.stack([misled.grid.output(state)["grid_logits"] for state in states])
    np.testing.assert_allclose(said.features["grid_logits"], logits[best, jnp.arange(2)], atol=1e-5)
    assert (said.accounts["vision"].steps == misled.vision.description.max_steps).all()
    np.testing.assert_allclose(said.confidence, 1.0 - said.energies["grid"], atol=1e-6)


def test_it_keeps_the_contract(student):
    conformance.check(student.grid, student.prepared(inputs(), KEY, name="grid"), KEY)


def test_a_query_reads_the_demonstrations_and_every_pair_matters(told):
    given = inputs()
    before = told(given)[-1]
    assert before.shape == (2, 1, CELLS, CELLS, grid.CODES)
    for frame in range(7):
        other = dataclasses.replace(given, video=given.video.at[:, frame].set(255 - given.video[:, frame]))
        assert jnp.abs(told(other)[-1] - before).max() > 1e-4, frame


def test_asked_in_turn_no_pair_ever_sees_its_own_output(told):
    given = inputs(count=8)
    before = told(given)
    assert before.shape[2] == 4
    for pair in range(4):
        changed = given.video.at[:, 2 * pair + 1].set(255 - given.video[:, 2 * pair + 1])
        after = told(dataclasses.replace(given, video=changed))
        np.testing.assert_array_equal(after[:, :, pair], before[:, :, pair])
        others = [q for q in range(4) if q != pair]
        assert jnp.abs(after[-1][:, jnp.array(others)] - before[-1][:, jnp.array(others)]).max() > 1e-4


def test_asking_in_turn_equals_asking_one_after_another(told):
    given = inputs(count=8)
    together = told(given)[-1]
    for pair in range(4):
        rest = [frame for other in range(4) if other != pair for frame in (2 * other, 2 * other + 1)]
        order = jnp.array([*rest, 2 * pair])
        alone = dataclasses.replace(given, video=given.video[:, order], frame_mask=given.frame_mask[:, order])
        np.testing.assert_allclose(told(alone)[-1][:, 0], together[:, pair], atol=2e-5)


def test_a_missing_pair_is_not_read(told):
    given = inputs()
    masked = dataclasses.replace(given, frame_mask=given.frame_mask.at[:, 2].set(False))
    poisoned = dataclasses.replace(masked, video=masked.video.at[:, 2:4].set(77))
    np.testing.assert_allclose(told(masked), told(poisoned), atol=1e-6)
    assert jnp.abs(told(masked)[-1] - told(given)[-1]).max() > 1e-4


def test_blocks_of_cells_come_back_in_their_places():
    two = dataclasses.replace(GRID, cells=8, symmetries=False)
    module = grid.GridIrp(two, VISION, rngs=nnx.Rngs(0))
    codes = np.arange(64).reshape(8, 8)
    tokens = codes.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3).reshape(16, 4)
    logits = jnp.zeros((1, 1, 16, 4, 11)).at[..., 0].set(tokens)
    np.testing.assert_array_equal(module._canvas(logits)[0, 0, :, :, 0], codes)


def test_a_canvas_that_does_not_fit_the_vision_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        grid.GridIrp(dataclasses.replace(GRID, cells=6), VISION, rngs=nnx.Rngs(0))


def test_on_a_smaller_canvas_a_cell_says_the_same_where_nothing_else_is_seen(student):
    """Cropping leaves out white tokens alone: positions, sizes and codes keep their meaning."""
    cropped = dataclasses.replace(VISION, crop=True)
    made = Student(config.StudentConfig(cropped, config.Target(width=4, grid=4), grid=GRID), rngs=nnx.Rngs(0))
    small = inputs()
    small = dataclasses.replace(small, video=small.video[:, :, :, :8, :8])
    given = made.prepared(small, KEY, name="grid")
    assert irp.found(given, "vision").shape == (2, 7, 4, 16)
    states = irp.unroll(made.grid, given, KEY, 1)
    assert made.grid.output(states[-1])["grid_logits"].shape == (2, 1, 2, 2, 11)
    assert made.vision.output(irp.start(made.vision, small, KEY)) == {}
    whole, part = (extent.places(jnp.array([[[2, 1]]]), wide, 4).reshape(wide, wide, 4) for wide in (4, 2))
    np.testing.assert_array_equal(whole[:2, :2], part)
    np.testing.assert_array_equal(
        made.vision._positions(2), made.vision.position[...].reshape(4, 4, -1)[:2, :2].reshape(4, -1)
    )
    with pytest.raises(ValueError, match="whole 4-pixel patches up to 16"):
        made.vision.side(20, 20)
