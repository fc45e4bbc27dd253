import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from student_jax.irps import objects

KEY = jax.random.key(0)


def test_places_lie_in_the_frame_whatever_the_head_says():
    head = objects.Objects(8, 4, count=3, rngs=nnx.Rngs(0))
    head.head.kernel[...] *= 50.0  # attention and moves at their ends
    said = head(jax.random.normal(KEY, (2, 2, 16, 8)))
    assert said.shape == (2, 2, 3, 3)
    assert 0 <= float(said[..., :2].min()) <= float(said[..., :2].max()) <= 1


def test_attention_finds_the_cell_and_the_attended_token_says_where_in_it():
    head = objects.Objects(4, 4, count=2, rngs=nnx.Rngs(0))
    kernel = np.zeros((4, 2, 4), np.float32)
    kernel[0, 0, 0] = kernel[1, 1, 0] = 100.0  # channel k of a token attracts object k
    kernel[2, :, 1], kernel[3, :, 3] = 50.0, 1.0  # channel 2 moves it down, channel 3 shows it
    head.head.kernel[...] = jnp.asarray(kernel.reshape(4, 8))
    x = np.full((1, 16, 4), 1e-3, np.float32)
    x[0, 6] = [1, 0, 1, 0]  # row 1, column 2
    x[0, 13] = [0, 1, 0, 1]  # row 3, column 1
    said = np.asarray(head(jnp.asarray(x)))[0]
    np.testing.assert_allclose(said[0, :2], [2 / 4, 2.5 / 4], atol=1e-3)
    np.testing.assert_allclose(said[1, :2], [3.5 / 4, 1.5 / 4], atol=1e-2)
    assert said[1, 2] > said[0, 2] + 1


def test_reading_every_token_first_equals_reading_the_attended_one():
    head, x = objects.Objects(8, 4, count=2, rngs=nnx.Rngs(0)), jax.random.normal(KEY, (1, 16, 8))
    logits = head.head(head.norm(x)).reshape(1, 16, 2, 4)
    weight = jax.nn.softmax(logits[0, :, 1, 0])
    attended = weight @ head.norm(x)[0]
    visible = head.head(attended[None])[0].reshape(2, 4)[1, 3]
    np.testing.assert_allclose(head(x)[0, 1, 2], visible, rtol=1e-4)
