import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from student_jax import attention, layers


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


def test_narrowed_kernels_say_exactly_the_same():
    made = layers.Mlp(8, 16, dtype="bfloat16", rngs=nnx.Rngs(0))
    narrow = layers.narrowed(made)
    x = jax.random.normal(jax.random.key(0), (3, 8))
    np.testing.assert_array_equal(narrow(x), made(x))
    assert narrow.up.kernel[...].dtype == jnp.bfloat16
    assert made.up.kernel[...].dtype == jnp.float32, "the module itself stays as it is"


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


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_cross_attention_accumulates_in_float32_backward_too(dtype):
    graph, params = nnx.split(layers.CrossAttention(8, 2, dtype=dtype, rngs=nnx.Rngs(0)))
    keys, mask = jnp.ones((2, 5, 2, 4), dtype), jnp.ones((2, 5), bool)
    loss = jax.grad(lambda params, x: jnp.sum(nnx.merge(graph, params)(x, keys, keys, mask) ** 2))
    dots = products(loss, params, jnp.ones((2, 3, 8)))
    assert len(dots) >= 9
    assert {dot[2] for dot in dots} == {"float32"}
    assert any(dot[:2] == (dtype, dtype) for dot in dots)


def test_masked_keys_are_never_read_and_nothing_to_read_gives_zero():
    query, key, value = (jax.random.normal(jax.random.key(i), (2, 5, 2, 4)) for i in range(3))
    mask = jnp.ones((2, 5), bool).at[0, 3:].set(False).at[1].set(False)
    mixed = attention.attend(query, key, value, mask)
    np.testing.assert_allclose(mixed[:1], attention.attend(query[:1], key[:1, :3], value[:1, :3]), atol=1e-6)
    assert not np.asarray(mixed[1]).any()
    poisoned = attention.attend(query, key.at[0, 3:].set(1e4), value.at[0, 3:].set(1e4), mask)
    np.testing.assert_allclose(poisoned, mixed, atol=1e-6)


@pytest.mark.parametrize("shape", [None, (2, 5), (2, 4, 5)])
@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_attention_says_the_same_whether_or_not_a_gradient_is_asked_for(shape, dtype, close):
    sizes = ((2, 4, 2, 8), (2, 5, 2, 8), (2, 5, 2, 8))
    given = [jax.random.normal(jax.random.key(i), size).astype(dtype) for i, size in enumerate(sizes)]
    mask = None if shape is None else jax.random.bernoulli(jax.random.key(3), 0.5, shape).at[1].set(False)
    alone = attention.attend(*given, mask)
    beside_gradient, pull = jax.vjp(lambda *given: attention.attend(*given, mask), *given)
    np.testing.assert_allclose(alone, beside_gradient, atol=close)
    assert alone.dtype == jnp.float32
    wanted = jax.vjp(lambda *given: attention.trained(*given, mask), *given)[1](alone)
    for mine, its in zip(pull(alone), wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(mine, "f4"), np.asarray(its, "f4"))


def test_masked_mean_counts_what_may_be_read():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    mask = jnp.array([[True, False, True], [False, False, False]])
    np.testing.assert_allclose(layers.masked_mean(x, mask), [[2, 3], [0, 0]])
