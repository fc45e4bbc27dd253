"""JAX primitives that move, join, gather, reduce or multiply arrays, as ONNX nodes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from eval.onnx_graph import Graph, OnnxError, Tensor, element, known

FOLDED = 1024  # values: what is known and no larger is always computed here


def structural(graph: Graph, eqn: Any, inputs: list[Tensor]) -> Tensor:
    """What is known is computed here where it does not grow; the rest becomes nodes."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "broadcast_in_dim":
        return _broadcast(graph, eqn, inputs)
    inputs = [graph.full(each) for each in inputs]
    size = sum(each.known.size if each.known is not None else math.inf for each in inputs)
    if math.prod(out.shape) <= max(size, FOLDED) and size < math.inf:
        return known(np.asarray(eqn.primitive.bind(*(jax.numpy.asarray(each.known) for each in inputs), **eqn.params)))
    return MOVES[name](graph, eqn, inputs, (out.shape, out.dtype))


def _broadcast(graph: Graph, eqn: Any, inputs: list[Tensor]) -> Tensor:
    """Only the new axes are made; ONNX's own broadcasting does the rest where the value meets another."""
    x, shape, held = inputs[0], eqn.params["shape"], [1] * len(eqn.params["shape"])
    for source, target in enumerate(eqn.params["broadcast_dimensions"]):
        held[target] = x.held[source]
    return graph.reshaped(x, tuple(held), tuple(shape))


def _reshape(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    return graph.reshaped(inputs[0], tuple(out[0]))


def _transpose(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    return graph.node("Transpose", inputs, out, perm=eqn.params["permutation"])


def _slice(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    start, stop = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(start)
    axes = [
        axis for axis, side in enumerate(inputs[0].shape) if (start[axis], stop[axis], strides[axis]) != (0, side, 1)
    ]
    if not axes:
        return inputs[0]
    picked = [graph.numbers(*(values[axis] for axis in axes)) for values in (start, stop)]
    steps = graph.numbers(*(strides[axis] for axis in axes))
    return graph.node("Slice", [inputs[0], *picked, graph.numbers(*axes), steps], out)


def _concatenate(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    inputs = [each for each in inputs if 0 not in each.shape]
    return graph.node("Concat", inputs, out, axis=eqn.params["dimension"])


def _tile(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    return graph.node("Tile", [inputs[0], graph.numbers(*eqn.params["reps"])], out)


def _stack(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    axis = eqn.params["axis"]
    parts = [graph.reshaped(each, (*each.shape[:axis], 1, *each.shape[axis:])) for each in inputs]
    return graph.node("Concat", parts, out, axis=axis)


def _pad(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    low, high, inside = zip(*eqn.params["padding_config"], strict=True)
    if any(inside) or min(*low, *high) < 0:
        raise OnnxError("pad between values or by less than nothing has no ONNX form here")
    if not any(low + high):
        return inputs[0]
    return graph.node("Pad", [inputs[0], graph.numbers(*low, *high), inputs[1]], out)


def _cumsum(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    axis = graph.reshaped(known(np.array([eqn.params["axis"]], np.int64)), ())
    return graph.node("CumSum", [inputs[0], axis], out, reverse=int(eqn.params["reverse"]))


def _arg(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    op, (axis,) = {"argmin": "ArgMin", "argmax": "ArgMax"}[eqn.primitive.name], eqn.params["axes"]
    found = graph.node(op, inputs, (out[0], np.int64), axis=axis, keepdims=0)
    return graph.node("Cast", [found], out, to=element(np.dtype(out[1])))


def _reduce(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    axes = eqn.params["axes"]
    if not axes:
        return inputs[0]
    if eqn.primitive.name == "reduce_sum":  # the only one whose axes are an input in this opset
        return graph.node("ReduceSum", [inputs[0], graph.numbers(*axes)], out, keepdims=0)
    op = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd"}[eqn.primitive.name]
    return graph.node(op, inputs, out, axes=list(axes), keepdims=0)


def _reduce_truth(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    op = {"reduce_or": "ReduceMax", "reduce_and": "ReduceMin"}[eqn.primitive.name]
    numbers = graph.node("Cast", inputs, (inputs[0].shape, np.int32), to=element(np.dtype(np.int32)))
    reduced = graph.node(op, [numbers], (out[0], np.int32), axes=list(eqn.params["axes"]), keepdims=0)
    return graph.node("Cast", [reduced], out, to=element(np.dtype(np.bool_)))


def _dot(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    """Batch axes first, what is contracted last and first: one MatMul. Accumulation is the runtime's."""
    (contract_l, contract_r), (batch_l, batch_r) = eqn.params["dimension_numbers"]
    left, right = inputs
    free_l = [axis for axis in range(len(left.shape)) if axis not in (*contract_l, *batch_l)]
    free_r = [axis for axis in range(len(right.shape)) if axis not in (*contract_r, *batch_r)]
    batch = [left.shape[axis] for axis in batch_l]
    depth = math.prod(left.shape[axis] for axis in contract_l)
    rows, columns = ([x.shape[axis] for axis in free] for x, free in ((left, free_l), (right, free_r)))
    left = graph.reshaped(_moved(graph, left, [*batch_l, *free_l, *contract_l]), (*batch, math.prod(rows), depth))
    right = graph.reshaped(_moved(graph, right, [*batch_r, *contract_r, *free_r]), (*batch, depth, math.prod(columns)))
    result = graph.node("MatMul", [left, right], ((*batch, math.prod(rows), math.prod(columns)), out[1]))
    return graph.reshaped(result, tuple(out[0]))


def _moved(graph: Graph, x: Tensor, order: list[int]) -> Tensor:
    if order == sorted(order):
        return x
    shape = tuple(x.shape[axis] for axis in order)
    if x.known is not None:
        return known(np.ascontiguousarray(x.known.transpose(order)))
    return graph.node("Transpose", [x], (shape, x.dtype), perm=order)


def _gather(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    """Whole rows along one axis, or single values by all axes, as indexing and `take` make them."""
    (x, indices), numbers, sizes = inputs, eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    axes = numbers.start_index_map
    plain = tuple(numbers.collapsed_slice_dims) == tuple(axes) and not numbers.operand_batching_dims
    whole = all(size == (1 if axis in axes else x.shape[axis]) for axis, size in enumerate(sizes))
    if not (plain and whole and (len(axes) == 1 or tuple(axes) == tuple(range(len(x.shape))))):
        raise OnnxError(f"this gather has no ONNX form here: {numbers}, slices {sizes}")
    indices = _inside(graph, eqn, indices, np.array([x.shape[axis] - 1 for axis in axes], np.int32))
    if len(axes) > 1:
        wide = graph.node("Cast", [indices], (indices.shape, np.int64), to=7)
        return graph.node("GatherND", [x, wide], out)
    where, (axis,) = indices.shape[:-1], axes
    rows = graph.reshaped(indices, where)
    shape = (*x.shape[:axis], *where, *x.shape[axis + 1 :])
    found = graph.node("Gather", [x, rows], (shape, out[1]), axis=axis)
    # ONNX leaves the axes of the indices where the gathered axis was; JAX says where the others go.
    picked, kept = list(range(axis, axis + len(where))), iter([*range(axis), *range(axis + len(where), len(shape))])
    at = iter(picked)
    return _moved(graph, found, [next(kept) if i in numbers.offset_dims else next(at) for i in range(len(shape))])


def _inside(graph: Graph, eqn: Any, indices: Tensor, last: np.ndarray) -> Tensor:
    """Indices clipped to the array, as JAX does or, for those it promises or fills, never has to."""
    if indices.known is not None:
        return known(np.clip(indices.known, 0, last))
    low = graph.node("Max", [indices, known(np.int32(0))], indices)
    return graph.node("Min", [low, known(last)], indices)


def _same(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    return inputs[0]


def _iota(graph: Graph, eqn: Any, inputs: list[Tensor], out: tuple) -> Tensor:
    return known(np.asarray(eqn.primitive.bind(**eqn.params)))


MOVES: dict[str, Callable[[Graph, Any, list[Tensor], tuple], Tensor]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "concatenate": _concatenate,
    "stack": _stack,
    "tile": _tile,
    "pad": _pad,
    "cumsum": _cumsum,
    "argmin": _arg,
    "argmax": _arg,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_prod": _reduce,
    "reduce_or": _reduce_truth,
    "reduce_and": _reduce_truth,
    "dot_general": _dot,
    "gather": _gather,
    "stop_gradient": _same,
    "copy": _same,
    "optimization_barrier": _same,
    "iota": _iota,
}
"""Primitives of whole arrays, but for broadcast_in_dim."""
