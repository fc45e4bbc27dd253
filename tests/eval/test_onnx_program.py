"""JAX functions as ONNX models: each says in onnxruntime what it says in jax, and what has no form is named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from eval import onnx_export
from eval.onnx_graph import OnnxError

X = np.linspace(-2.0, 3.0, 24, dtype=np.float32).reshape(2, 3, 4)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
WHICH = np.array([2, 0], np.int32)


def said(function, weights, given):
    """What the model of `function(weights, given)` answers."""
    model = onnx_export.model(weights, function, given)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {each.name: given[each.name] for each in session.get_inputs()})
    return {
        each.name.removeprefix("decision."): value for each, value in zip(session.get_outputs(), found, strict=True)
    }


def halving(w, g):
    """A loop whose length depends on its input, beside which one value is carried unchanged."""
    start = (jnp.int32(0), g["x"], w["rows"])
    return jax.lax.while_loop(
        lambda carry: jnp.any(jnp.abs(carry[1]) > 1.0), lambda c: (c[0] + 1, c[1] * c[2].max() / 22.0, c[2]), start
    )


FUNCTIONS = {
    "norm": lambda w, g: g["x"] * jax.lax.rsqrt(jnp.mean(jnp.square(g["x"]), -1, keepdims=True) + 1e-6),
    "gelu": lambda w, g: jax.nn.gelu(g["x"], approximate=True),
    "softmax": lambda w, g: jax.nn.softmax(g["x"], axis=-1),
    "log_softmax": lambda w, g: jax.nn.log_softmax(g["x"], axis=1),
    "softplus": lambda w, g: jax.nn.softplus(g["x"]) + jnp.expm1(g["x"]) + jax.nn.sigmoid(g["x"]),
    "clip": lambda w, g: jnp.clip(g["x"], -1.0, w["rows"][0, 1]),
    "powers": lambda w, g: g["x"] ** 2 + g["x"] ** 3 + (jnp.abs(g["x"]) + 1.0) ** -1,
    "einsum": lambda w, g: jnp.einsum("bij,kj->kib", g["x"], w["rows"]),
    "two_axes": lambda w, g: jnp.einsum("bij,ij->b", g["x"], w["rows"]),
    "batched": lambda w, g: jnp.einsum("bij,bkj->bik", g["x"], g["x"] + 1.0),
    "transposed": lambda w, g: g["x"].transpose(2, 0, 1)[::2, :, 1:],
    "joined": lambda w, g: jnp.stack([g["x"][:, 0], g["x"][:, 1]], axis=1) + jnp.concatenate([g["x"]] * 2, 1)[:, :2],
    "padded": lambda w, g: jnp.pad(g["x"], ((0, 0), (1, 2), (0, 0)), constant_values=7.0),
    "summed": lambda w, g: jnp.cumsum(g["x"], axis=1) + g["x"].max(axis=(0, 2), keepdims=True) - g["x"].min(),
    "truth": lambda w, g: jnp.all(g["x"] > -1, axis=2) | jnp.any(g["x"] > 2, axis=2) & ~(g["x"][..., 0] != 0),
    "chosen": lambda w, g: jnp.where(g["x"][..., 0] > 0, g["x"][..., 1] > 1, g["x"][..., 2] > 0),
    "finite": lambda w, g: jnp.isfinite(jnp.log(g["x"])),
    "least": lambda w, g: jnp.argmin(g["x"], axis=1),
    "rows": lambda w, g: w["rows"][g["which"]],
    "columns": lambda w, g: g["x"][:, :, np.array([3, 1, 1])],
    "taken": lambda w, g: jnp.take(g["x"], g["which"][0], axis=1),
    "cells": lambda w, g: w["rows"][g["which"], 1],
    "past_the_end": lambda w, g: w["rows"].at[g["which"] + 5].get(mode="clip"),
    "bytes": lambda w, g: g["bytes"].astype(jnp.int32)[:, ::2].astype(jnp.float32) / 2.0,
    "narrow": lambda w, g: (g["x"] @ w["narrow"].astype(jnp.float32)) + w["rows"].sum(),
    "constant": lambda w, g: w["rows"].sum(0) + 0.0 * g["x"][0, 0],
    "tile": lambda w, g: jnp.tile(g["x"], (3, 2)) * 2.0,
    "while": halving,
    "scan": lambda w, g: jax.lax.scan(lambda c, _: (c * 1.5 + w["rows"][:2].sum(), None), g["x"], length=3)[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_says_the_same(name):
    weights = {"rows": ROWS, "narrow": np.asarray(jnp.ones((4, 5), jnp.bfloat16))}
    given = {"x": X, "which": WHICH, "bytes": np.arange(12, dtype=np.uint8).reshape(2, 6) * 20}
    wanted = jax.tree.leaves(jax.jit(FUNCTIONS[name])(weights, given))
    for got, want in zip(said(FUNCTIONS[name], weights, given).values(), wanted, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(got, want, atol=1e-6, rtol=1e-5)


def test_what_a_loop_hands_on_unchanged_stays_outside():
    model = onnx_export.model({"rows": ROWS}, halving, {"x": X})
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    assert len(loop.input) == 2 + 2  # trips and begin; the count and x, not the rows


def test_inputs_that_change_nothing_are_left_out():
    def function(w, g):
        jax.random.uniform(jax.random.key(g["seed"]))
        return {"atp": g["atp"] * 2}

    given = {"atp": np.ones(1, np.float32), "seed": np.uint32(3)}
    model = onnx_export.model({}, function, given)
    assert [each.name for each in model.graph.input] == ["atp"]
    assert [each.name for each in model.graph.output] == ["decision.atp"]


def test_weights_keep_their_names_and_their_size():
    weights = {"a.kernel": np.asarray(jnp.ones((64, 64), jnp.bfloat16)), "b.kernel": np.ones((64, 64), np.int8)}
    function = lambda w, g: sum(g["x"] @ leaf.astype(jnp.float32) for leaf in w.values())  # noqa: E731
    model = onnx_export.model(weights, function, {"x": np.ones((1, 64), np.float32)})
    sizes = {each.name: len(each.raw_data) for each in model.graph.initializer}
    assert sizes["a.kernel"] == 64 * 64 * 2
    assert sizes["b.kernel"] == 64 * 64


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda w, g: jnp.sort(g["x"]), "sort"),
        (lambda w, g: jax.random.normal(jax.random.key(0), (2, 3, 4)) + g["x"], "random"),
        (lambda w, g: jax.lax.scan(lambda c, x: (c + x, c), g["x"][0, 0], g["x"][0])[1], "scan"),
        (lambda w, g: g["seed"] & jnp.uint32(3), "uint32"),
    ],
)
def test_what_has_no_form_is_named(function, words):
    with pytest.raises(OnnxError, match=words):
        onnx_export.model({}, function, {"x": X, "seed": np.uint32(0)})


def test_the_same_program_gives_the_same_bytes():
    make = functools.partial(onnx_export.model, {"rows": ROWS}, halving, {"x": X})
    assert make().SerializeToString(deterministic=True) == make().SerializeToString(deterministic=True)
