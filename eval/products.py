"""The matrix products of a traced function: their FLOPs and their shapes, by walking its jaxpr."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from jax.extend import core

from eval import live


@dataclasses.dataclass(frozen=True)
class Product:
    """`count` products [batch, m, k] x [batch, k, n] with operands of one dtype."""

    batch: int
    m: int
    k: int
    n: int
    dtype: str
    count: int = 1

    @property
    def flops(self) -> float:
        """A multiply-add is two."""
        return 2.0 * self.count * self.batch * self.m * self.k * self.n


def products(closed: core.ClosedJaxpr) -> list[Product]:
    """Every product that the outputs of a `jax.make_jaxpr` result depend on. A scan counts each turn; a while loop
    counts its body once."""
    return list(_walk(closed.jaxpr, 1))


def flops(closed: core.ClosedJaxpr) -> float:
    """FLOPs of all products: element-wise work is left out, as torch's counter does."""
    return sum(product.flops for product in products(closed))


def dominant(found: list[Product]) -> Product:
    """The shape and dtype on which most FLOPs are spent, counted once."""
    totals: dict[Product, float] = {}
    for product in found:
        shape = dataclasses.replace(product, count=1)
        totals[shape] = totals.get(shape, 0.0) + product.flops
    return max(totals, key=totals.get)


def _walk(jaxpr: core.Jaxpr, count: int) -> Iterator[Product]:
    for equation in live.live(jaxpr)[0]:
        name = equation.primitive.name
        if name == "dot_general":
            yield _dot(equation, count)
        elif name == "conv_general_dilated":
            yield _convolution(equation, count)
        turns = equation.params["length"] if name == "scan" else 1
        for inner in _inner(equation.params, name):
            yield from _walk(inner, count * turns)


def _inner(params: dict, name: str) -> list[core.Jaxpr]:
    """Jaxprs inside an equation; of a cond's branches the first, because only one of them runs."""
    values = params["branches"][:1] if name == "cond" else [v for v in params.values()]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]


def _dot(equation, count: int) -> Product:
    left, right = (variable.aval for variable in equation.invars)
    (contract_left, contract_right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    rows = [size for axis, size in enumerate(left.shape) if axis not in (*contract_left, *batch_left)]
    columns = [size for axis, size in enumerate(right.shape) if axis not in (*contract_right, *batch_right)]
    shared, batch = ([left.shape[axis] for axis in axes] for axes in (contract_left, batch_left))
    sizes = [int(math.prod(axes)) for axes in (batch, rows, shared, columns)]
    return Product(*sizes, dtype=np.dtype(left.dtype).name, count=count)


def _convolution(equation, count: int) -> Product:
    kernel, result = equation.invars[1].aval, equation.outvars[0].aval
    out_axis = equation.params["dimension_numbers"].rhs_spec[0]
    filters = kernel.shape[out_axis]
    rows = math.prod(result.shape) // filters
    return Product(1, rows, math.prod(kernel.shape) // filters, filters, np.dtype(kernel.dtype).name, count)
