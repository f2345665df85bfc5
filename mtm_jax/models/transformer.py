"""A pre-norm transformer without causality: who attends to whom is up to the attention mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax.models import networks

# Finite, so that the softmax of a query without any key is finite.
MASKED_LOGIT = -1e9


class Attention(nn.Module):
    """Multi-head self-attention: [..., L, C] -> [..., L, C]."""

    width: int
    heads: int
    dropout: float
    dtype: jnp.dtype

    def setup(self):
        # One matmul for q, k, v; U(+-sqrt(6 / 4C)), as Xavier initialisation has it when packed.
        packed_init = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
        self.qkv = networks.dense(3 * self.width, "qkv", packed_init, self.dtype)
        self.out = networks.dense(self.width, "out", dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Array, attention_mask: Array | None, deterministic: bool) -> Array:
        """Let tokens x [..., L, C] attend to each other; see `Stack` for the mask."""
        q, k, v = self.project(x)
        # Float32 like the softmax: bfloat16 would round large logits to the same number.
        scaled, accurate = q * q.shape[-1] ** -0.5, {"preferred_element_type": jnp.float32}
        logits = jnp.einsum("...hqd,...hkd->...hqk", scaled, k, **accurate)
        if attention_mask is not None:
            logits = logits + mask_bias(attention_mask)
        weights = self.drop(jax.nn.softmax(logits), deterministic).astype(self.dtype)
        return self.merge(jnp.einsum("...hqk,...hkd->...hqd", weights, v))

    def project(self, x: Array) -> tuple[Array, Array, Array]:
        """Project tokens to queries, keys and values, each [..., heads, L, C / heads]."""
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        return self.split_heads(q), self.split_heads(k), self.split_heads(v)

    def split_heads(self, x: Array) -> Array:
        """[..., L, C] -> [..., heads, L, C / heads]."""
        return jnp.moveaxis(x.reshape(*x.shape[:-1], self.heads, -1), -2, -3)

    def merge(self, x: Array) -> Array:
        """Project the heads' results, [..., heads, L, C / heads], to [..., L, C]."""
        x = jnp.moveaxis(x, -3, -2)
        return self.out(x.reshape(*x.shape[:-2], self.width))


def mask_bias(attention_mask: Array) -> Array:
    """Bias of the logits of all heads: [..., Q, L] bool -> [..., 1, Q, L]."""
    return jnp.where(attention_mask, 0.0, MASKED_LOGIT)[..., None, :, :]


class Block(nn.Module):
    """A transformer layer: attention, then a feed-forward network, each pre-norm and residual."""

    width: int
    heads: int
    hidden: int
    dropout: float
    dtype: jnp.dtype

    def setup(self):
        self.norm1, self.norm2 = networks.layer_norm("norm1"), networks.layer_norm("norm2")
        self.attention = Attention(
            self.width, self.heads, self.dropout, self.dtype, name="attention"
        )
        self.ffn_in = networks.dense(self.hidden, "ffn_in", dtype=self.dtype)
        self.ffn_out = networks.dense(self.width, "ffn_out", dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Array, attention_mask: Array | None, deterministic: bool) -> Array:
        """Map tokens x [..., L, C] to [..., L, C]; see `Stack` for the mask."""
        attended = self.attention(self.norm1(x), attention_mask, deterministic)
        x = x + self.drop(attended, deterministic)
        return x + self.drop(self.feed_forward(self.norm2(x), deterministic), deterministic)

    def feed_forward(self, x: Array, deterministic: bool) -> Array:
        """Transform every token by itself: [..., L, C] -> [..., L, C]."""
        h = networks.gelu(self.ffn_in(x))
        return self.ffn_out(self.drop(h, deterministic))


class Stack(nn.Module):
    """Transformer layers, independently initialised, with a final LayerNorm."""

    layers: int
    width: int
    heads: int
    hidden: int
    dropout: float
    dtype: jnp.dtype
    remat: bool = False  # keep only the input of each layer for the gradient, recompute the rest

    def setup(self):
        # Argument 3, counted from `self`, is `deterministic`.
        block = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        self.blocks = [
            block(self.width, self.heads, self.hidden, self.dropout, self.dtype, name=f"layer_{i}")
            for i in range(self.layers)
        ]
        self.norm = networks.layer_norm("norm")

    def __call__(self, x: Array, attention_mask: Array | None, deterministic: bool) -> Array:
        """Map tokens x [..., L, C] to [..., L, C].

        Args:
            x: the tokens.
            attention_mask: bool [..., L, L], True where a query (row) attends to a key (column),
                or [..., 1, L], the same keys for all queries. A masked key has no influence at
                all, unless all keys of a query are masked. None: all attend to all.
            deterministic: without dropout.
        """
        for block in self.blocks:
            x = block(x, attention_mask, deterministic)
        return self.norm(x)
