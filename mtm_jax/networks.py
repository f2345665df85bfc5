"""Building blocks: multilayer perceptron and pre-norm transformer stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

# Finite, so that a row without any visible key has a finite softmax.
HIDDEN_LOGIT = -1e9

# U(+-1/sqrt(fan_in)), the initial scale of the released models.
fan_in_uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


class MLP(nn.Module):
    """Dense layers of the given widths, activated between them: [..., D] -> [..., widths[-1]]."""

    widths: Sequence[int]
    activation: Callable[[Array], Array] = nn.relu
    normalize: bool = False  # LayerNorm before each activation

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=fan_in_uniform, name=f"layer_{i}")(x)
            if i + 1 < len(self.widths):
                if self.normalize:
                    x = layer_norm(f"norm_{i}")(x)
                x = self.activation(x)
        return x


def gelu(x: Array) -> Array:
    """The exact GELU, through the error function."""
    return nn.gelu(x, approximate=False)


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
        width = x.shape[-1]
        depth = width // self.heads
        # One product for q, k, v; U(+-sqrt(6 / 4C)) as a packed Xavier initialisation has it.
        packed_init = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
        qkv = nn.Dense(3 * width, kernel_init=packed_init, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(*x.shape[:-1], 3, self.heads, depth)
        q, k, v = qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]
        logits = jnp.einsum("...qhd,...khd->...hqk", q, k).astype(jnp.float32) / jnp.sqrt(depth)
        if key_visible is not None:
            logits = jnp.where(key_visible[..., None, None, :], logits, HIDDEN_LOGIT)
        weights = nn.Dropout(self.dropout)(jax.nn.softmax(logits), deterministic)
        out = jnp.einsum("...hqk,...khd->...qhd", weights.astype(self.dtype), v)
        out = out.reshape(*x.shape[:-1], width)
        return nn.Dense(width, kernel_init=fan_in_uniform, dtype=self.dtype, name="out")(out)


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
        h = nn.Dense(self.hidden, kernel_init=fan_in_uniform, dtype=self.dtype, name="ffn_in")(
            layer_norm("norm2")(x)
        )
        h = drop(gelu(h))
        h = nn.Dense(x.shape[-1], kernel_init=fan_in_uniform, dtype=self.dtype, name="ffn_out")(h)
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
