"""Physical units inside a program: a robot's state to what a student reads, its actions back."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bridge.embodiment import Embodiment


class UnitsError(ValueError):
    """An embodiment whose units no program can compute."""


def check(body: Embodiment) -> None:
    """UnitsError where a key is a rotation that is converted, which needs float64 and refuses what is no rotation."""
    keys = [(group, key) for group in ("state", "action") for key in body.dimensions(group)]
    if turned := [f"{group}.{key}" for group, key in keys if body.scaling(group, key).turn]:
        raise UnitsError(
            f"embodiment {body.tag} converts rotations ({', '.join(turned)}), which an exported program cannot do: "
            "record and train it in the representation that the student reads (no `rotations` in its transform)"
        )


def normalise(body: Embodiment, state: Float[Array, "b 1 d"]) -> Float[Array, "b 1 s"]:
    """What a student reads of a state in physical units, keys joined in the embodiment's order."""
    scaled, start = [], 0
    with jax.numpy_rank_promotion("allow"):
        for key, width in body.dimensions("state").items():
            scaled.append(body.scaling("state", key).forward(state[..., start : start + width]))
            start += width
    return jnp.concatenate(scaled, axis=-1)


def denormalise(body: Embodiment, actions: Float[Array, "b h a"]) -> Float[Array, "b h d"]:
    """Actions in physical units, keys joined in the embodiment's order."""
    physical, start = [], 0
    with jax.numpy_rank_promotion("allow"):
        for key, width in body.widths("action").items():
            physical.append(body.scaling("action", key).inverse(actions[..., start : start + width]))
            start += width
    return jnp.concatenate(physical, axis=-1)
