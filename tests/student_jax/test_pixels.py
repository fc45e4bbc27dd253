import jax
import jax.numpy as jnp
import numpy as np
import pytest

from student_jax import pixels


def picture(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def enlarge(cells, factor):
    return np.kron(cells, np.ones((1, factor, factor, 1), np.uint8))


def unpatch(patches, canvas, patch):
    grid = canvas // patch
    blocks = np.asarray(patches).reshape(-1, grid, grid, patch, patch, 3)
    return blocks.swapaxes(2, 3).reshape(-1, canvas, canvas, 3)


@pytest.mark.parametrize(("canvas", "patch"), [(32, 8), (224, 28), (224, 14)])
def test_arc_renders_of_15_and_30_pixels_a_cell_are_the_same_input(canvas, patch):
    cells = picture(2, 30, 30)
    patches = jax.jit(lambda frames: pixels.patches(frames, canvas, patch))
    np.testing.assert_array_equal(patches(enlarge(cells, 15)), patches(enlarge(cells, 30)))


def test_a_canvas_sized_frame_is_only_cut_and_scaled():
    frames = picture(2, 32, 32)
    got = unpatch(pixels.patches(jnp.asarray(frames), 32, 8), 32, 8)
    np.testing.assert_allclose(got, (frames.astype(np.float32) - 127.5) / 127.5, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(40, 61), (17, 50), (20, 20), (63, 32)])
def test_resize_is_the_antialiased_linear_one(height, width):
    frames = picture(2, height, width)
    expected = jax.image.resize(frames.astype(np.float32), (2, 32, 32, 3), "linear", antialias=True)
    got = unpatch(pixels.patches(jnp.asarray(frames), 32, 8), 32, 8)
    np.testing.assert_allclose(got * 127.5 + 127.5, expected, atol=0.05)


@pytest.mark.parametrize("shape", [(900, 900), (480, 640), (719, 101), (3, 2)])
def test_a_flat_frame_of_any_size_stays_flat(shape):
    frames = np.full((1, *shape, 3), 200, np.uint8)
    patches = jax.jit(lambda frames: pixels.patches(frames, 32, 8))(frames)
    np.testing.assert_allclose(patches, (200 - 127.5) / 127.5, atol=1e-5)


def test_box_means_are_exact():
    frames = picture(1, 64, 128)
    expected = frames.reshape(1, 32, 2, 32, 4, 3).mean(axis=(2, 4), dtype=np.float64)
    got = unpatch(pixels.patches(jnp.asarray(frames), 32, 8), 32, 8)
    np.testing.assert_allclose(got * 127.5 + 127.5, expected, atol=3e-5)
