"""Modalities that are covered, confused or lost in training, and the trust that a host would then have in them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from student_jax import irp

CLEAN, EYES, WORDS, BODY = range(4)
CHANCES = (0.55, 0.25, 0.1, 0.1)
"""Of a sample being left alone, or of its cameras, instruction or proprioception being disturbed."""
LEAST = 0.1
"""The tightest budget that is drawn, as a share of what all steps cost."""
REACTED, UNFAIR = 0.7, 0.1
"""Chance that trust has already fallen where it should, and that it has where it should not."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a student is given, and what its host believes."""

    inputs: irp.Inputs
    trust: Float[Array, "b m"]
    clean: Bool[Array, "b f"]
    """Frames that show what the teacher saw."""
    share: Float[Array, " b"]
    """The budget, of what all refinement steps cost."""


def calm(inputs: irp.Inputs, modules: int, *, trust: float) -> Scene:
    """Nothing disturbed, everything trusted alike."""
    b, t, v = inputs.frame_mask.shape
    clean, share = inputs.frame_mask.reshape(b, t * v), jnp.ones(b, jnp.float32)
    return Scene(inputs, jnp.full((b, modules), trust, jnp.float32), clean, share)


def disturb(inputs: irp.Inputs, key: Array) -> Scene:
    """Some samples with a camera (or all) black, grey noise, showing another scene or reported as lost; some asked with
    another's instruction; some with another's state. Trust in vision, language, control has mostly fallen there.

    What another sample lends looks natural: only trust tells that it is wrong.
    """
    keys = jax.random.split(key, 4)
    b, t, v = inputs.frame_mask.shape
    kind = jax.random.categorical(keys[0], jnp.log(jnp.array(CHANCES)), shape=(b,))
    video, lost, wrong = _cameras(inputs.video, kind == EYES, keys[1])
    other = {name: jnp.roll(getattr(inputs, name), 1, axis=0) for name in ("tokens", "token_mask", "state")}
    given = dataclasses.replace(
        inputs,
        video=video,
        frame_mask=inputs.frame_mask & ~lost[:, None],
        **{n: _where(kind == (BODY if n == "state" else WORDS), new, getattr(inputs, n)) for n, new in other.items()},
    )
    suspect = jnp.stack([wrong.any(axis=1), kind == WORDS, kind == BODY], axis=1)
    clean = inputs.frame_mask.reshape(b, t * v) & ~jnp.tile(wrong | lost, (1, t))
    return Scene(given, _trust(suspect, keys[2]), clean, shares(b, keys[3]))


def shares(rows: int, key: Array) -> Float[Array, " b"]:
    """Budgets drawn log-uniformly from LEAST to a little more than everything costs."""
    return jnp.exp(jax.random.uniform(key, (rows,), minval=jnp.log(LEAST), maxval=0.1))


def _cameras(video: Array, hit: Bool[Array, " b"], key: Array) -> tuple[Array, Bool[Array, "b v"], Bool[Array, "b v"]]:
    """The disturbed video, which views are lost, and which show something wrong."""
    which, how, noise = jax.random.split(key, 3)
    b, _, v = video.shape[:3]
    one = jax.nn.one_hot(jax.random.randint(which, (b,), 0, v), v, dtype=bool)
    both = jax.random.bernoulli(jax.random.fold_in(which, 1), 0.5, (b, 1))
    views = hit[:, None] & (one | both)
    manner = jax.random.randint(how, (b, 1), 0, 4)
    grey = jax.random.randint(noise, video.shape, 96, 160).astype(jnp.uint8)
    shown = video
    for number, picture in enumerate((jnp.zeros_like(video), grey, jnp.roll(video, 1, axis=0))):
        chosen = (views & (manner == number))[:, None, :, None, None, None]
        shown = jnp.where(chosen, picture, shown)
    return shown, views & (manner == 3), views & (manner < 3)


def _trust(suspect: Bool[Array, "b m"], key: Array) -> Float[Array, "b m"]:
    first, second, third = jax.random.split(key, 3)
    high = 1.0 - 0.25 * jnp.square(jax.random.uniform(first, suspect.shape))
    low = jax.random.uniform(second, suspect.shape, minval=0.05, maxval=0.6)
    fell = jax.random.bernoulli(third, jnp.where(suspect, REACTED, UNFAIR))
    return jnp.where(fell, low, high)


def _where(mask: Bool[Array, " b"], new: Array, old: Array) -> Array:
    return jnp.where(mask.reshape(-1, *(1,) * (old.ndim - 1)), new, old)
