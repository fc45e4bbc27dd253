"""Training on a compact store: its codes go to the device as they are and become tokens there, before the losses."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bridge import blocks, compaction, store
from bridge.coding import Coding
from train.stages import Stage

Batch = dict[str, Array]


def understood(stage: Stage, reader: store.Reader | Any) -> Stage:
    """The stage, whose losses and scores are given tokens in the teacher's own basis whatever the store holds. reader:
    anything that samples come from; one that is no store holds no codes."""
    codings = getattr(reader, "codings", None)
    if not codings:
        return stage

    def given(of: Callable[..., Any]) -> Callable[..., Any]:
        return lambda student, batch, key: of(student, decoded(batch, codings), key)

    return dataclasses.replace(stage, terms=given(stage.terms), measure=given(stage.measure))


def decoded(batch: Batch, codings: dict[str, Coding]) -> Batch:
    """The batch with float32 tokens [b, f, t, d] in place of its codes int8 [b, f, m, k] and scales [b, f, m]."""
    found = dict(batch)
    for name, coding in codings.items():
        if name in batch:
            turned = found[name].astype(jnp.float32) * found.pop(name + compaction.SCALE)[..., None]
            cut = jnp.matmul(turned, jnp.asarray(coding.basis), precision=jax.lax.Precision.HIGHEST)
            found[name] = blocks.spread(cut + coding.mean.reshape((1,) * (cut.ndim - 1) + (-1,)), coding.grid)
    return found
