"""Types of the weights: what int8 rounds, what is left alone, what computes in what."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from eval import export, variants
from student_jax import config, presets
from student_jax.student import Student


@pytest.fixture(scope="module")
def student():
    return variants.computed(
        Student(presets.make("tiny", config.Target(width=8, grid=4)), rngs=nnx.Rngs(0)), "bfloat16"
    )


def test_quantising_is_off_by_half_a_step_at_most():
    kernel = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32) * np.geomspace(1e-6, 1e3, 7, dtype="f4")
    kernel[..., 3] = 0.0
    whole, scale = variants.quantise(kernel)
    assert whole.dtype == np.int8
    assert scale.shape == (1, 1, 7)
    assert (np.abs(whole * scale - kernel) <= 0.5001 * scale).all()
    assert np.abs(whole).max(axis=(0, 1)).tolist() == [127, 127, 127, 0, 127, 127, 127]


def test_unpacked_kernels_are_those_that_were_packed(student):
    folded = student.folded()
    weights, _ = export.split(folded)
    names = variants.kernels(folded)
    packed = variants.packed(weights, names, "int8")
    unpacked = variants.unpacked(packed)
    assert set(unpacked) == set(weights)
    assert "vision.embed.kernel" in names
    for name, leaf in unpacked.items():
        assert leaf.shape == weights[name].shape
        if name in names:
            assert packed[name].dtype == np.int8
            assert leaf.dtype == jnp.bfloat16
            scale = packed[name + variants.SCALE]
            assert (np.abs(np.asarray(leaf, np.float32) - weights[name]) <= 0.5 * scale + 0.005 * np.abs(leaf)).all()
        else:
            assert leaf is weights[name]


def test_small_products_that_are_trained_in_float32_stay_so(student):
    assert not [name for name in variants.kernels(student) if name.startswith("vision.error_out")]


def test_the_type_of_products_changes_and_no_weight_does(student):
    single = variants.computed(student, "float32")
    assert single.config.vision.dtype == "float32"
    assert not variants.kernels(single)
    one, other = (export.split(each)[0] for each in (single, student))
    assert all(np.array_equal(one[name], other[name]) for name in one | other)


@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("bfloat16", 2), ("int8", 1)])
def test_a_kernel_rests_in_its_type(student, dtype, bytes_each):
    made = variants.computed(student, dtype)
    weights, _ = export.split(made)
    packed = variants.packed(weights, variants.kernels(student), dtype)
    assert all(packed[name].nbytes == bytes_each * weights[name].size for name in variants.kernels(student))
