"""Which parts of the student the backward pass computes again instead of keeping what is inside them."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax

_again = contextvars.ContextVar("again", default=False)


@contextlib.contextmanager
def recomputing(*, active: bool = True) -> Iterator[None]:
    """While a function is traced in here, what goes through `part` is recomputed in its backward pass."""
    token = _again.set(active)
    try:
        yield
    finally:
        _again.reset(token)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, of which a backward pass keeps only the arguments where it is traced within `recomputing`."""
    return jax.checkpoint(function) if _again.get() else function
