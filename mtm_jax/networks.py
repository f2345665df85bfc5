"""Building blocks: multilayer perceptron and pre-norm transformer stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

# Finite, so that a row without any visible key has a finite softmax.
HIDDEN_LOGIT = -1e9

# U(+-1/sqrt(fan_in)), the initial scale of the released models.
fan_in_uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """Multiply `x @ kernel`, [..., D] by [D, C]; differentiable in reverse mode.

    The kernel's gradient contracts all leading axes in one product of rows. The derived one
    would write a transposed copy of the activations, which takes longer than the product.
    """
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    grad_kernel = jax.lax.dot_general(rows, grad_rows, (((0,), (0,)), ((), ())))
    return grad @ kernel.T, grad_kernel


product.defvjp(_product_forward, _product_backward)


def _dot_general(x: Array, kernel: Array, dimension_numbers: tuple, precision: object) -> Array:
    return product(x, kernel)


def dense(
    features: int,
    name: str,
    kernel_init: nn.initializers.Initializer = fan_in_uniform,
    dtype: jnp.dtype = jnp.float32,
) -> nn.Dense:
    """Make a linear layer: [..., D] -> [..., features]."""
    return nn.Dense(
        features, kernel_init=kernel_init, dtype=dtype, dot_general=_dot_general, name=name
    )


class MLP(nn.Module):
    """Dense layers of the given widths, activated between them: [..., D] -> [..., widths[-1]]."""

    widths: Sequence[int]
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            x = dense(width, f"layer_{i}")(x)
            if i + 1 < len(self.widths):
                x = self.activation(x)
        return x


def gelu(x: Array) -> Array:
    """Compute the exact GELU, x Phi(x), through the error function."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * np.float32(np.sqrt(0.5))))


def layer_norm(name: str) -> nn.Module:
    """LayerNorm computed in float32."""
    return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False, name=name)


class Attention(nn.Module):
    """Bidirectional multi-head attention over L tokens with a visibility mask on the keys."""

    heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, key_visible: Array | None, deterministic: bool) -> Array:
        """Map x [..., L, C] to [..., L, C]; hidden keys, [..., L], get exactly zero weight."""
        width, depth = x.shape[-1], x.shape[-1] // self.heads
        # One product for q, k, v; U(+-sqrt(6 / 4C)) as a packed Xavier initialisation has it.
        packed_init = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
        qkv = dense(3 * width, "qkv", packed_init, self.dtype)(x)
        q, k, v = (self._split_heads(part) for part in jnp.split(qkv, 3, axis=-1))
        # Float32 like the softmax: bfloat16 would round large logits to the same number.
        logits = jnp.einsum(
            "...qd,...kd->...qk", q * depth**-0.5, k, preferred_element_type=jnp.float32
        )
        if key_visible is not None:
            logits += jnp.where(key_visible, 0.0, HIDDEN_LOGIT)[..., None, None, :]
        weights = nn.Dropout(self.dropout)(jax.nn.softmax(logits), deterministic)
        out = jnp.einsum("...qk,...kd->...qd", weights.astype(self.dtype), v)
        out = jnp.moveaxis(out, -3, -2).reshape(x.shape)
        return dense(width, "out", dtype=self.dtype)(out)

    def _split_heads(self, x: Array) -> Array:
        """[..., L, C] -> [..., heads, L, C / heads]."""
        x = x.reshape(*x.shape[:-1], self.heads, -1)
        return jnp.moveaxis(x, -2, -3)


class Block(nn.Module):
    """A pre-norm transformer layer: attention, then a feed-forward block, both residual."""

    heads: int
    hidden: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, key_visible: Array | None, deterministic: bool) -> Array:
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        attention = Attention(self.heads, self.dropout, self.dtype, name="attention")
        x = x + drop(attention(layer_norm("norm1")(x), key_visible, deterministic))
        h = dense(self.hidden, "ffn_in", dtype=self.dtype)(layer_norm("norm2")(x))
        h = dense(x.shape[-1], "ffn_out", dtype=self.dtype)(drop(gelu(h)))
        return x + drop(h)


class Stack(nn.Module):
    """Transformer layers, independently initialised, with a final LayerNorm."""

    layers: int
    heads: int
    hidden: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, key_visible: Array | None, deterministic: bool) -> Array:
        for i in range(self.layers):
            block = Block(self.heads, self.hidden, self.dropout, self.dtype, name=f"layer_{i}")
            x = block(x, key_visible, deterministic)
        return layer_norm("norm")(x)
