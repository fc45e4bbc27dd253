"""The rate at which this machine multiplies matrices of one shape, by XLA."""

import jax
import jax.numpy as jnp
import numpy as np

from bridge import channel

WORK = 4e9
"""FLOPs of a chain: long enough that the dispatch, a fifth of a millisecond, does not count."""


def measure(*, m: int, k: int, n: int, dtype: str, batch: int = 1, repeats: int = 10) -> float:
    """FLOP/s of [batch, m, k] x [batch, k, n] with float32 accumulation: the median call of a chain of products."""
    links = max(1, int(WORK / (2 * batch * m * k * n)))
    left, right = jnp.full((links, batch, m, k), 0.5, dtype), jnp.full((batch, k, n), 0.5, dtype)

    @jax.jit
    def chain(left, right):
        def link(total, part):
            product = jnp.einsum("bmk,bkn->bmn", part, right, preferred_element_type=jnp.float32)
            return total + product, None

        return jax.lax.scan(link, jnp.zeros((batch, m, n), jnp.float32), left)[0]

    chain(left, right).block_until_ready()
    seconds = np.median([channel.seconds(lambda: chain(left, right).block_until_ready()) for _ in range(repeats)])
    return float(2 * links * batch * m * k * n / seconds)
