"""FLOPs of products counted by hand, inside loops and calls too."""

import jax
import jax.numpy as jnp
import pytest

from eval import products

A, B = jnp.zeros((3, 4)), jnp.zeros((4, 5))


def count(function, *arguments):
    return products.flops(jax.make_jaxpr(function)(*arguments))


def test_a_product_is_two_flops_per_multiply_add():
    assert count(jnp.matmul, A, B) == 2 * 3 * 4 * 5


def test_batch_axes_count():
    assert count(
        lambda x, y: jnp.einsum("bhqd,bhkd->bhqk", x, y), jnp.zeros((2, 3, 5, 7)), jnp.zeros((2, 3, 6, 7))
    ) == (2 * 6 * 5 * 7 * 6)


def test_a_scan_counts_every_turn_and_a_call_its_inside():
    def scanned(a, b):
        return jax.lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((3, 5)), length=7)[0]

    assert count(jax.jit(scanned), A, B) == 7 * 120


def test_a_while_loop_counts_its_body_once():
    def loop(a, b):
        return jax.lax.while_loop(lambda c: c.sum() < 0, lambda c: c + a @ b, jnp.zeros((3, 5)))

    assert count(loop, A, B) == 120


def test_a_condition_counts_one_branch():
    assert count(lambda a, b: jax.lax.cond(True, lambda: a @ b, lambda: 2 * (a @ b)), A, B) == 120


def test_a_custom_gradient_counts_its_forward_pass():
    @jax.custom_vjp
    def product(a, b):
        return a @ b

    product.defvjp(lambda a, b: (a @ b, (a, b)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    assert count(product, A, B) == 120


def test_a_patch_convolution_is_a_product():
    def patches(x, w):
        return jax.lax.conv_general_dilated(x, w, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert count(patches, jnp.zeros((1, 8, 8, 3)), jnp.zeros((2, 2, 3, 5))) == 2 * 16 * 12 * 5


def test_agrees_with_the_compilers_own_count():
    def layer(a, b):
        return jnp.matmul(a, b) @ jnp.zeros((5, 6))

    compiler = jax.jit(layer).lower(A, B).cost_analysis()["flops"]
    assert count(layer, A, B) == pytest.approx(compiler)


def test_dominant_sums_equal_shapes():
    found = [products.Product(1, 2, 2, 2, "float32", count=9), products.Product(1, 3, 3, 3, "float32")]
    assert products.dominant(found) == products.Product(1, 2, 2, 2, "float32")
