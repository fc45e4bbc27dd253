"""Writes an exported student's program as model.onnx, for onnxruntime, OpenVINO and TensorRT."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper

from eval import artifact, export, live, onnx_program, runtimes
from eval.onnx_graph import IR, OPSET, Graph, OnnxError, known
from eval.variants import Dtype
from student_jax.student import Student

FILE = runtimes.MODEL


def write(folder: pathlib.Path, student: Student, kit: artifact.Kit, dtype: Dtype) -> dict[str, Any]:
    """Add the model of one observation to the artifact of a student in a type; returns the artifact's new meta.

    The type says in what the weights rest; what products are computed in is the runtime's choice. ExportError
    where the student computes something that has no ONNX form.
    """
    made = export.prepare(student, kit, dtype)
    one = export.given_shapes(made.student, kit, batch=1)
    try:
        found = model(made.weights, made.call, one)
    except OnnxError as error:
        raise export.ExportError(f"this student has no ONNX form: {error}") from error
    content = found.SerializeToString(deterministic=True)
    draft = folder / f".{FILE}"
    draft.write_bytes(content)
    os.replace(draft, folder / FILE)
    meta = json.loads((folder / "meta.json").read_text())
    files = meta["files"] | {FILE: hashlib.sha256(content).hexdigest()}
    return artifact.note(folder, {"files": files, "onnx": {"batch": 1, "opset": OPSET, "operators": operators(found)}})


def model(weights: dict[str, np.ndarray], call: Callable, given: dict[str, Any]) -> onnx.ModelProto:
    """`call(weights, given) -> nested dict of arrays` as a checked model.

    given: arrays, or `jax.ShapeDtypeStruct`s, by name, of the batch for which the model is made. Inputs have their
    names, outputs the path to them behind `decision`, joined by dots; inputs that change nothing are left out. Weights
    are initialisers, bfloat16 and int8 ones stored as such; products are float32, or what the runtime is told.
    Raises OnnxError.
    """
    closed, shape = jax.make_jaxpr(call, return_shape=True)(weights, given)
    names = [f"{runtimes.OUTPUT}{_path(path)}" for path, _ in jax.tree.leaves_with_path(shape)]
    graph = Graph()
    taken = iter(zip(live.used(closed.jaxpr), closed.jaxpr.invars, strict=True))
    leaves = []
    for path, leaf in jax.tree.leaves_with_path(weights):
        leaves.append(known(np.asarray(leaf)))
        graph.label(leaves[-1], _path(path))
        next(taken)
    inputs = []
    for path, _ in jax.tree.leaves_with_path(given):
        needed, var = next(taken)
        leaves.append(graph.input(var.aval.shape, _kept(var.aval, needed=needed), _path(path)))
        if needed:
            inputs.append(graph.typed(_path(path), leaves[-1]))
    outputs = onnx_program.convert(graph, closed, leaves)
    proto = graph.proto("student", inputs, dict(zip(names, outputs, strict=True)))
    made = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="sage-distill"
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def operators(made: onnx.ModelProto) -> dict[str, int]:
    """How often the model has each operator, loop bodies included."""
    found: dict[str, int] = {}

    def count(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            found[node.op_type] = found.get(node.op_type, 0) + 1
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    count(attribute.g)

    count(made.graph)
    return dict(sorted(found.items()))


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _kept(aval: Any, *, needed: bool) -> np.dtype:
    """An input's type; one that is left out may have any."""
    return np.dtype(aval.dtype) if needed else np.dtype(np.float32)
