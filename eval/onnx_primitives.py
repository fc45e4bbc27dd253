"""JAX primitives as ONNX nodes: everything without control flow that a student uses."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from eval.onnx_graph import NARROW, Graph, OnnxError, Tensor, element, known

PLAIN = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow",
    "exp": "Exp", "log": "Log", "tanh": "Tanh", "sqrt": "Sqrt", "floor": "Floor", "ceil": "Ceil", "abs": "Abs",
    "neg": "Neg", "sign": "Sign", "logistic": "Sigmoid", "erf": "Erf", "sin": "Sin", "cos": "Cos",
    "gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal",
    "and": "And", "or": "Or", "not": "Not",
}  # fmt: skip
LOGICAL = ("and", "or", "not")  # of truth values; of integers ONNX has none in this opset
SMALL = 1024  # values: below, what is known is always folded


def elementwise(graph: Graph, eqn: Any, inputs: list[Tensor]) -> Tensor:
    """A primitive of single values: broadcasts stay put off, and what is known is computed here."""
    held = np.broadcast_shapes(*(each.held for each in inputs))
    (out,) = eqn.outvars
    if all(each.known is not None for each in inputs) and not _widens(eqn, inputs):
        arrays = [np.broadcast_to(each.known, held if each.held else ()) for each in inputs]
        return known(np.asarray(eqn.primitive.bind(*map(jax.numpy.asarray, arrays), **eqn.params)), out.aval.shape)
    like = Tensor(held, out.aval.shape, np.dtype(out.aval.dtype))
    return SINGLE[eqn.primitive.name](graph, eqn, inputs, like)


def _widens(eqn: Any, inputs: list[Tensor]) -> bool:
    """Whether folding would store weights in more bytes than they came in."""
    wide = np.dtype(eqn.outvars[0].aval.dtype).itemsize
    return (
        eqn.primitive.name == "convert_element_type"
        and wide > inputs[0].dtype.itemsize
        and inputs[0].known.size > SMALL
    )


def _plain(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    name = eqn.primitive.name
    if name in LOGICAL and like.dtype != np.bool_:
        raise OnnxError(f"{name} of {like.dtype} has no ONNX form; only that of bool")
    return graph.node(PLAIN[name], inputs, like)


def _cast(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    (x,) = inputs
    if x.known is None and element(x.dtype) == element(like.dtype):
        return Tensor(x.held, x.shape, like.dtype, x.name)
    if x.dtype == np.uint8 and like.dtype != np.float32:  # TensorRT casts uint8 to floats only
        x = graph.node("Cast", [x], Tensor(x.held, x.shape, np.dtype(np.float32)), to=element(np.dtype(np.float32)))
    if x.known is not None and x.dtype == NARROW and element(like.dtype) == element(NARROW):
        return Tensor(x.held, x.shape, like.dtype, graph.name(x))
    return graph.node("Cast", [x], like, to=element(like.dtype))


def _integer_pow(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    (x,), power = inputs, eqn.params["y"]
    if not 1 <= power <= 4:
        return graph.node("Pow", [x, known(np.asarray(power, like.dtype))], like)
    result = x
    for _ in range(power - 1):
        result = graph.node("Mul", [result, x], like)
    return result


def _square(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    return graph.node("Mul", [*inputs, *inputs], like)


def _rsqrt(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    return graph.node("Reciprocal", [graph.node("Sqrt", inputs, like)], like)


def _is_finite(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    size = graph.node("Abs", inputs, Tensor(like.held, like.shape, inputs[0].dtype))
    return graph.node("Less", [size, known(np.float32(np.inf))], like)  # not true of a NaN either


def _ne(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    return graph.node("Not", [graph.node("Equal", inputs, like)], like)


def _log1p(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    return graph.node("Log", [graph.node("Add", [*inputs, known(np.float32(1))], like)], like)


def _expm1(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    return graph.node("Sub", [graph.node("Exp", inputs, like), known(np.float32(1))], like)


def _clamp(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    low, x, high = inputs
    return graph.node("Min", [graph.node("Max", [x, low], like), high], like)


def _select(graph: Graph, eqn: Any, inputs: list[Tensor], like: Tensor) -> Tensor:
    if len(inputs) != 3 or inputs[0].dtype != np.bool_:
        raise OnnxError("select_n has an ONNX form for two cases chosen by bool only")
    which, otherwise, chosen = inputs
    if otherwise is chosen:
        return chosen
    if like.dtype == np.bool_:  # onnxruntime has no Where of truth values
        yes, no = graph.node("And", [which, chosen], like), graph.node("Not", [which], which)
        return graph.node("Or", [yes, graph.node("And", [no, otherwise], like)], like)
    return graph.node("Where", [which, chosen, otherwise], like)


SINGLE: dict[str, Callable[[Graph, Any, list[Tensor], Tensor], Tensor]] = dict.fromkeys(PLAIN, _plain) | {
    "convert_element_type": _cast,
    "integer_pow": _integer_pow,
    "square": _square,
    "rsqrt": _rsqrt,
    "is_finite": _is_finite,
    "ne": _ne,
    "log1p": _log1p,
    "expm1": _expm1,
    "clamp": _clamp,
    "select_n": _select,
}
"""Primitives of single values."""
