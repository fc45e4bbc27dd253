"""A traced JAX program as an ONNX graph: calls in line, counted loops unrolled, conditional loops as ONNX loops."""

from typing import Any

import numpy as np
from jax.extend import core
from onnx import helper

from eval import live, onnx_primitives, onnx_shapes
from eval.onnx_graph import Graph, OnnxError, Tensor, known

CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Parameters under which a primitive that only calls keeps what it calls."""


def convert(graph: Graph, closed: core.ClosedJaxpr, inputs: list[Tensor]) -> list[Tensor]:
    """The outputs of a program for these inputs, by nodes added to `graph`. Raises OnnxError naming a primitive that
    has no ONNX form here."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, map(known, closed.consts), strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)

    def read(atom: Any) -> Tensor:
        return known(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, core.Literal) else values[atom]

    for eqn in live.live(jaxpr)[0]:
        values |= zip(eqn.outvars, _apply(graph, eqn, [read(atom) for atom in eqn.invars]), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _apply(graph: Graph, eqn: Any, inputs: list[Tensor]) -> list[Tensor]:
    name = eqn.primitive.name
    if name == "scan":
        return _scan(graph, eqn, inputs)
    if name == "while":
        return _while(graph, eqn, inputs)
    if name in onnx_primitives.SINGLE:
        return [onnx_primitives.elementwise(graph, eqn, inputs)]
    if name in onnx_shapes.MOVES or name == "broadcast_in_dim":
        return [onnx_shapes.structural(graph, eqn, inputs)]
    inner = next((eqn.params[key] for key in CALLS if key in eqn.params), None)
    if inner is None:
        raise OnnxError(
            f"primitive {name!r} has no ONNX form: {[str(each.aval) for each in eqn.invars]}; write one in "
            "eval/onnx_primitives.py or eval/onnx_shapes.py, or keep it out of what is exported"
        )
    return convert(graph, _closed(inner), inputs)


def _closed(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> core.ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())


def _scan(graph: Graph, eqn: Any, inputs: list[Tensor]) -> list[Tensor]:
    constants, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    if len(inputs) > constants + carried or len(eqn.outvars) > carried:
        raise OnnxError("a scan over arrays, or one that gathers results, has no ONNX form here; only one that carries")
    fixed, carry = inputs[:constants], inputs[constants:]
    for _ in range(eqn.params["length"]):
        carry = convert(graph, eqn.params["jaxpr"], [*fixed, *carry])
    return carry


def _while(graph: Graph, eqn: Any, inputs: list[Tensor]) -> list[Tensor]:
    """An ONNX Loop. What the body hands on as it came is not carried, so that weights and context stay outside."""
    of_test, of_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    test_fixed, body_fixed, first = inputs[:of_test], inputs[of_test : of_test + of_body], inputs[of_test + of_body :]
    test, body = (_closed(eqn.params[key]) for key in ("cond_jaxpr", "body_jaxpr"))
    carried = _changing(graph, body, body_fixed, first)
    inner = graph.inner()
    start = [graph.full(each) if moves else each for each, moves in zip(first, carried, strict=True)]
    before = [inner.input(x.shape, x.dtype) if moves else x for x, moves in zip(start, carried, strict=True)]
    after = convert(inner, body, [*body_fixed, *before])
    (again,) = convert(inner, test, [*test_fixed, *after])
    (begin,) = convert(graph, test, [*test_fixed, *start])
    moving = [index for index, moves in enumerate(carried) if moves]
    outputs = {graph.fresh("again"): again} | {graph.fresh("next"): after[index] for index in moving}
    turn, alive = Tensor((), (), np.dtype(np.int64), graph.fresh("turn")), inner.input((), np.bool_)
    heads = [helper.make_tensor_value_info(turn.name, 7, ())]
    heads += [inner.typed(each.name, each) for each in (alive, *(before[index] for index in moving))]
    name = graph.fresh("loop")
    results = {index: graph.input(start[index].shape, start[index].dtype, graph.fresh("left")) for index in moving}
    graph.nodes.append(
        helper.make_node(
            "Loop",
            ["", *(graph.name(each) for each in (begin, *(start[index] for index in moving)))],
            [each.name for each in results.values()],
            name=name,
            body=inner.proto(name, heads, outputs),
        )
    )
    return [results.get(index, each) for index, each in enumerate(start)]


def _changing(graph: Graph, body: core.ClosedJaxpr, fixed: list[Tensor], first: list[Tensor]) -> list[bool]:
    """Which carried values the body changes, found by trial: what it hands on only because others are unchanged too
    needs another look."""
    carried = [True] * len(first)
    while True:
        trial = graph.inner()
        trial.root = Graph()
        before = [trial.input(x.shape, x.dtype) if moves else x for x, moves in zip(first, carried, strict=True)]
        after = convert(trial, body, [*fixed, *before])
        found = [moves and old is not new for moves, old, new in zip(carried, before, after, strict=True)]
        if found == carried:
            return carried
        carried = found
