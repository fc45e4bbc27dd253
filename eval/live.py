"""What of a traced program its outputs depend on: tracing keeps everything, a compiler or a runtime only this."""

from typing import Any

from jax.extend import core


def used(jaxpr: core.Jaxpr) -> list[bool]:
    """Which inputs the outputs depend on."""
    _, wanted = live(jaxpr)
    return [var in wanted for var in jaxpr.invars]


def live(jaxpr: core.Jaxpr) -> tuple[list[Any], set[Any]]:
    """The equations that the outputs depend on, and every variable those read: a key that nothing draws from is
    dropped with what made it."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if wanted.intersection(eqn.outvars):
            kept.append(eqn)
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, core.Literal))
    return kept[::-1], wanted
