"""An ONNX graph under construction: its values, weights as initialisers, nodes, and broadcasts that are put off."""

import dataclasses
import hashlib
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8
"""What TensorRT 8.6 and later, onnxruntime and OpenVINO all read."""
TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.bool_): TensorProto.BOOL,
}
NARROW = np.dtype(jnp.bfloat16)


class OnnxError(ValueError):
    """The program has no ONNX form here."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """What one value of the program became: a name in the graph, or known numbers."""

    held: tuple[int, ...]
    """Shape in the graph: `shape` but for ones where a broadcast was put off."""
    shape: tuple[int, ...]
    """Shape in the program."""
    dtype: np.dtype
    """In the program; bfloat16 is float32 in the graph, unless it is known."""
    name: str = ""
    known: np.ndarray | None = None


def known(array: Any, shape: tuple[int, ...] | None = None) -> Tensor:
    """Numbers that do not depend on the inputs; `shape` where they stand for a larger array by broadcasting."""
    array = np.asarray(array)
    return Tensor(array.shape, array.shape if shape is None else shape, array.dtype, known=array)


class Graph:
    """Nodes in order. The graphs of loop bodies are made with `inner` and share names and initialisers."""

    def __init__(self, root: "Graph | None" = None):
        self.nodes: list[onnx.NodeProto] = []
        self.root = root or self
        if root is None:
            self.initialisers: list[onnx.TensorProto] = []
            self._count = itertools.count()
            self._names: dict[Any, str] = {}
            self._labels: dict[Any, str] = {}

    def inner(self) -> "Graph":
        return Graph(self.root)

    def label(self, tensor: Tensor, name: str) -> None:
        """Call the initialiser of these known numbers by this name, should they become one."""
        self._labels.setdefault(_digest(tensor.known), name)

    def fresh(self, stem: str) -> str:
        return f"{stem}_{next(self.root._count)}"

    def input(self, shape: tuple[int, ...], dtype: Any, name: str = "") -> Tensor:
        return Tensor(tuple(shape), tuple(shape), np.dtype(dtype), name or self.fresh("carry"))

    def node(
        self, op: str, inputs: list[Tensor | str], like: Tensor | tuple[tuple[int, ...], Any], **attributes: Any
    ) -> Tensor:
        """One node. `like`: a tensor whose shapes and dtype the result has, or (shape, dtype)."""
        name = self.fresh(op.lower())
        names = [each if isinstance(each, str) else self.name(each) for each in inputs]
        self.nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        if isinstance(like, Tensor):
            return dataclasses.replace(like, name=name, known=None)
        return Tensor(tuple(like[0]), tuple(like[0]), np.dtype(like[1]), name)

    def name(self, tensor: Tensor) -> str:
        """The tensor's name in the graph; known numbers become an initialiser, once."""
        return tensor.name or self.root._initialiser(tensor.known)

    def numbers(self, *values: int) -> str:
        """The name of an int64 vector: axes, shapes."""
        return self.root._initialiser(np.array(values, np.int64))

    def full(self, tensor: Tensor) -> Tensor:
        """The tensor with its broadcast done."""
        if tensor.held == tensor.shape:
            return tensor
        if tensor.known is not None and np.prod(tensor.shape) <= max(1024, tensor.known.size):
            return known(np.broadcast_to(tensor.known, tensor.shape).copy())
        return self.node("Expand", [tensor, self.numbers(*tensor.shape)], (tensor.shape, tensor.dtype))

    def reshaped(self, tensor: Tensor, held: tuple[int, ...], shape: tuple[int, ...] | None = None) -> Tensor:
        """Reshaped in the graph to `held`, which stands for `shape`."""
        shape = held if shape is None else shape
        if tensor.known is not None:
            return known(tensor.known.reshape(held), shape)
        if tensor.held == held:
            return dataclasses.replace(tensor, shape=shape)
        result = self.node("Reshape", [tensor, self.numbers(*held)], (held, tensor.dtype))
        return dataclasses.replace(result, shape=shape)

    def typed(self, name: str, tensor: Tensor) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, element(tensor.dtype), tensor.shape)

    def proto(self, name: str, inputs: list[onnx.ValueInfoProto], outputs: dict[str, Tensor]) -> onnx.GraphProto:
        """The finished graph; every output gets a node of its own, under its own name."""
        infos = []
        for label, tensor in outputs.items():
            self.nodes.append(helper.make_node("Identity", [self.name(self.full(tensor))], [label], name=label))
            infos.append(self.typed(label, tensor))
        initialisers = self.initialisers if self.root is self else []
        return helper.make_graph(self.nodes, name, inputs, infos, initializer=initialisers)

    def _initialiser(self, array: np.ndarray) -> str:
        key = _digest(array)
        if key not in self._names:
            name = self._labels.get(key) or self.fresh("constant")
            self.initialisers.append(stored(array, name))
            self._names[key] = self._widened(name) if array.dtype == NARROW else name
        return self._names[key]

    def _widened(self, name: str) -> str:
        wide = self.fresh("wide")
        self.nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.FLOAT))
        return wide


def _digest(array: np.ndarray) -> tuple:
    content = np.ascontiguousarray(array).tobytes()
    return str(array.dtype), array.shape, hashlib.blake2b(content, digest_size=16).digest()


def stored(array: np.ndarray, name: str) -> onnx.TensorProto:
    """Weights as an initialiser; bfloat16 stays two bytes a value."""
    if array.dtype != NARROW:
        return numpy_helper.from_array(np.asarray(array, order="C"), name)
    raw = np.asarray(array, order="C").view(np.uint16).tobytes()
    return helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, raw, raw=True)


def element(dtype: np.dtype) -> int:
    """ONNX's type for values in the graph."""
    dtype = np.dtype(np.float32) if dtype == NARROW else dtype
    if dtype not in TYPES:
        raise OnnxError(f"values of {dtype} have no place in the ONNX program; expected one of {[*map(str, TYPES)]}")
    return TYPES[dtype]
