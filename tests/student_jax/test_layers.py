import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import layers


def products(function, *arguments):
    """(operand dtypes, result dtype) of every dot in a function's jaxpr, nested calls included."""
    found = []

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.append((*(str(v.aval.dtype) for v in equation.invars), str(equation.outvars[0].aval.dtype)))
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    visit(inner)

    visit(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def block_gradient(dtype):
    block = layers.Block(8, 2, 16, dtype=dtype, rngs=nnx.Rngs(0))
    graph, params = nnx.split(block)
    return jax.grad(lambda params, x: jnp.sum(nnx.merge(graph, params)(x) ** 2)), params, jnp.ones((2, 3, 8))


def test_every_product_of_a_bf16_block_accumulates_in_float32_backward_too():
    dots = products(*block_gradient("bfloat16"))
    assert len(dots) >= 18  # four linears and two attention products, each with two backward ones
    assert {dot[2] for dot in dots} == {"float32"}
    linear = [dot for dot in dots if dot[:2] == ("bfloat16", "bfloat16")]
    assert len(linear) >= 14


def test_a_float32_block_has_no_bf16():
    assert {name for dot in products(*block_gradient("float32")) for name in dot} == {"float32"}


def test_bf16_product_and_its_gradient_are_near_float32():
    x, kernel, weight = (
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(16, 32), (32, 8), (16, 8)])
    )
    for operate in (
        lambda f: f(x, kernel),
        lambda f: jax.grad(lambda x, k: jnp.sum(weight * f(x, k)), (0, 1))(x, kernel),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max()),
            operate(layers.matmul_bf16),
            operate(jnp.matmul),
        )


def test_parameters_and_outputs_are_float32_whatever_the_compute_dtype():
    block = layers.Block(8, 2, 16, dtype="bfloat16", rngs=nnx.Rngs(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(block))} == {"float32"}
    assert block(jnp.ones((2, 3, 8))).dtype == jnp.float32


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_norm_has_unit_mean_square(scale):
    y = layers.RmsNorm(64)(scale * jax.random.normal(jax.random.key(0), (5, 64)))
    np.testing.assert_allclose(jnp.mean(y**2, axis=-1), 1.0, rtol=0.02)


def test_attention_is_equivariant_to_token_order():
    attention = layers.Attention(8, 2, dtype="float32", rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    np.testing.assert_allclose(attention(x)[:, ::-1], attention(x[:, ::-1]), atol=1e-5)


def test_statistics_are_not_parameters():
    assert not issubclass(layers.Statistic, nnx.Param)
