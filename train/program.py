"""A jitted function whose compiled form can be looked at before its first call, without compiling it twice."""

from typing import Any

import jax


class Program:
    """Calls a jitted function; for batches of a shape that was `compiled` already, what was compiled then.

    jax does not share what `lower().compile()` makes with the calls of a jitted function.
    """

    def __init__(self, jitted: Any, *, batch: int):
        """batch: which argument changes in shape, if any does."""
        self.jitted, self._batch, self._ready = jitted, batch, {}

    def __call__(self, *arguments: Any) -> Any:
        ready = self._ready.get(shapes(arguments[self._batch])) if self._ready else None
        return (ready or self.jitted)(*arguments)

    def compiled(self, *arguments: Any) -> jax.stages.Compiled:
        """The program for these arguments, arrays or jax.ShapeDtypeStruct with shardings."""
        kind = shapes(arguments[self._batch])
        if kind not in self._ready:
            self._ready[kind] = self.jitted.lower(*arguments).compile()
        return self._ready[kind]


def shapes(tree: Any) -> tuple:
    """What a compiled program is bound to."""
    return tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))
