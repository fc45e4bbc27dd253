"""Layers with float32 parameters and explicit casts: products in the compute dtype, everything else in float32."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from student_jax import attention, remat


class Statistic(nnx.Variable):
    """A constant that belongs to the weights (checkpointed, exported, set by training) but is never optimised."""


@jax.custom_vjp
def matmul_bf16(x: Float[Array, "n i"], kernel: Float[Array, "i o"]) -> Float[Array, "n o"]:
    """x @ kernel with bf16 operands and float32 accumulation and result, in the backward products too.

    JAX's own transpose multiplies the float32 cotangent by a bf16 operand, which XLA widens to a float32 product;
    here the cotangent is rounded to bf16 first.
    """
    return jnp.matmul(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def _matmul_forward(x, kernel):
    return matmul_bf16(x, kernel), (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


def _matmul_backward(saved, cotangent):
    x, kernel = saved
    cotangent = cotangent.astype(jnp.bfloat16)
    d_x = jnp.matmul(cotangent, kernel.T, preferred_element_type=jnp.float32)
    # XLA's CPU product is twice as slow when it must transpose a bf16 operand itself; the barrier keeps the two apart.
    x_transposed = jax.lax.platform_dependent(x, cpu=lambda x: jax.lax.optimization_barrier(x.T), default=lambda x: x.T)
    return d_x, jnp.matmul(x_transposed, cotangent, preferred_element_type=jnp.float32)


matmul_bf16.defvjp(_matmul_forward, _matmul_backward)


def product(x: Float[Array, "... i"], kernel: Float[Array, "i o"], dtype: DTypeLike) -> Float[Array, "... o"]:
    """x @ kernel with operands in the compute dtype (float32 or bfloat16), accumulated and returned in float32."""
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    y = matmul_bf16(rows, kernel) if jnp.dtype(dtype) == jnp.bfloat16 else rows @ kernel
    return y.reshape(*x.shape[:-1], kernel.shape[1])


def along_last(vector: Float[Array, " d"], like: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """`vector` shaped to broadcast over the last axis of `like`."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def masked_mean(x: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """Mean over the tokens that may be read; zero where none may."""
    total = jnp.sum(jnp.where(mask[:, :, None], x, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]


class Linear(nnx.Module):
    """y = x @ kernel + bias over the last axis; float32 out, whatever the compute dtype."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs, scale: float = 1.0):
        std = scale / inputs**0.5
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        y = product(x, self.kernel[...], self.dtype)
        return y + along_last(self.bias[...], y)


def narrowed(module: nnx.Module) -> nnx.Module:
    """The same function with the kernels of `Linear` held in their compute dtype: for inference, where rounding them
    at every call costs as much as a product of few rows."""
    other = nnx.clone(module)
    for _, part in nnx.iter_modules(other):
        if isinstance(part, Linear):
            part.kernel = nnx.Param(part.kernel[...].astype(part.dtype))
    return other


class PatchEmbedding(nnx.Module):
    """Linear over square RGB patches, its kernel held by spatial frequency (DCT-II) and colour contrast.

    The same function class as a kernel held by pixel, but an Adam step is then per frequency: held by pixel, neighbours
    move together and brightness learns far faster than detail. Seen once on ARC frames, 400 steps: validation error
    0.0093 with it at width 128 (0.3^k gates), 0.0244 by pixel at width 192 (1/(1+k) gates).
    """

    def __init__(self, patch: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        shape = (patch, patch, 3, width)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) / (3 * patch**2) ** 0.5)
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.by_pixel = False
        self.dtype = jnp.dtype(dtype)

    def __call__(self, patches: Float[Array, "n p c"]) -> Float[Array, "n p d"]:
        y = product(patches, self._pixel_kernel().reshape(-1, self.kernel.shape[-1]), self.dtype)
        return y + along_last(self.bias[...], y)

    def folded(self) -> "PatchEmbedding":
        """The same function with its kernel held by pixel: for inference."""
        other = nnx.clone(self)
        other.kernel[...] = self._pixel_kernel()
        other.by_pixel = True
        return other

    def flops(self) -> float:
        """Of bringing the kernel to pixels, once per call whatever the batch."""
        return 0.0 if self.by_pixel else 2.0 * self.kernel.size * (2 * self.kernel.shape[0] + 3)

    def _pixel_kernel(self) -> Float[Array, "p q 3 d"]:
        kernel, side = self.kernel[...], self.kernel.shape[0]
        if self.by_pixel:
            return kernel
        kernel = jnp.einsum("fi,fgcd->igcd", cosines(side), kernel)
        kernel = jnp.einsum("gj,igcd->ijcd", cosines(side), kernel)
        return jnp.einsum("ck,ijcd->ijkd", contrasts(), kernel)


def cosines(size: int) -> np.ndarray:
    """The orthonormal DCT-II matrix [frequency, position]."""
    index = np.arange(size)
    matrix = np.cos(np.pi * (index[None, :] + 0.5) * index[:, None] / size) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.astype(np.float32)


def contrasts() -> np.ndarray:
    """An orthonormal colour basis [contrast, RGB]: brightness, red against blue, green against both."""
    matrix = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


class RmsNorm(nnx.Module):
    """x / rms(x) * scale in float32 (arXiv:1910.07467)."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
        return x * along_last(self.scale[...], x)


class Mlp(nnx.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, width: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs, scale: float = 1.0):
        self.up = Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.down = Linear(hidden, width, dtype=dtype, rngs=rngs, scale=scale)

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return self.down(jax.nn.gelu(self.up(x), approximate=True))


class Attention(nnx.Module):
    """Multi-head self-attention; a mask says which tokens may be read."""

    def __init__(self, width: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs, scale: float = 1.0):
        self.qkv = Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.out = Linear(width, width, dtype=dtype, rngs=rngs, scale=scale)
        self.heads = heads
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "n t d"], mask: Bool[Array, "n t"] | None = None) -> Float[Array, "n t d"]:
        rows, tokens, width = x.shape
        split = self.qkv(x).reshape(rows, tokens, 3, self.heads, width // self.heads).astype(self.dtype)
        return self.out(attention.attend(split[:, :, 0], split[:, :, 1], split[:, :, 2], mask))


class CrossAttention(nnx.Module):
    """Multi-head attention to keys and values that were made elsewhere, once for a context that stays the same.

    There may be several rows of queries per row of the context, one after another: m is a multiple of n.
    """

    def __init__(self, width: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs, scale: float = 1.0):
        self.query = Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = Linear(width, width, dtype=dtype, rngs=rngs, scale=scale)
        self.heads = heads
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self,
        x: Float[Array, "m t d"],
        key: Num[Array, "n k h c"],
        value: Num[Array, "n k h c"],
        mask: Bool[Array, "n k"] | Bool[Array, "n q k"],
    ) -> Float[Array, "m t d"]:
        query = self.query(x).reshape(key.shape[0], -1, self.heads, x.shape[-1] // self.heads).astype(self.dtype)
        return self.out(attention.attend(query, key, value, mask).reshape(x.shape))


class Block(nnx.Module):
    """A pre-norm transformer block; the residual stream stays float32."""

    def __init__(self, width: int, heads: int, mlp: int, *, dtype: DTypeLike, rngs: nnx.Rngs, scale: float = 1.0):
        self.attention_norm = RmsNorm(width)
        self.attention = Attention(width, heads, dtype=dtype, rngs=rngs, scale=scale)
        self.mlp_norm = RmsNorm(width)
        self.mlp = Mlp(width, mlp, dtype=dtype, rngs=rngs, scale=scale)

    def __call__(self, x: Float[Array, "n t d"], mask: Bool[Array, "n t"] | None = None) -> Float[Array, "n t d"]:
        return remat.part(self._advance)(x, mask)

    def _advance(self, x: Float[Array, "n t d"], mask: Bool[Array, "n t"] | None) -> Float[Array, "n t d"]:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))
