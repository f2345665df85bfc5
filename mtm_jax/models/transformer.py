"""The pre-norm transformer stack, and attention that reads some of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax.models import networks

# Finite, so that a query that reads no key has a finite softmax.
HIDDEN_LOGIT = -1e9


class Attention(nn.Module):
    """Bidirectional multi-head attention."""

    width: int
    heads: int
    dropout: float
    dtype: jnp.dtype

    def setup(self):
        # One product for q, k, v; U(+-sqrt(6 / 4C)) as a packed Xavier initialisation has it.
        packed_init = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
        self.qkv = networks.dense(3 * self.width, "qkv", packed_init, self.dtype)
        self.out = networks.dense(self.width, "out", dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Array, readable: Array | None, deterministic: bool) -> Array:
        """Let tokens x [..., L, C] read each other, of them what is `readable`; see Keys."""
        projected = self.project(x)
        return self.attend(projected.q, [projected.keys(readable)], deterministic)

    def project(self, x: Array) -> Projected:
        """Project tokens [..., L, C] to queries, keys and values."""
        return Projected(*(self._split_heads(part) for part in jnp.split(self.qkv(x), 3, axis=-1)))

    def project_keys(self, x: Array, readable: Array | None) -> Keys:
        """Project tokens [..., L, C] that only others read: no queries."""
        kernel, bias = (self.qkv.variables["params"][name] for name in ("kernel", "bias"))
        x, kernel, bias = (part.astype(self.dtype) for part in (x, kernel, bias))
        kv = networks.product(x, kernel[:, self.width :]) + bias[self.width :]
        return Keys(*(self._split_heads(part) for part in jnp.split(kv, 2, axis=-1)), readable)

    def attend(self, q: Array, keys: Sequence[Keys], deterministic: bool = True) -> Array:
        """Let queries, [..., heads, L, C / heads], read all keys together: -> [..., L, C].

        Parts may lack leading axes that others have: what they have in common is computed once.
        """
        # Float32 like the softmax: bfloat16 would round large logits to the same number.
        logits = [self._logits(q * q.shape[-1] ** -0.5, part) for part in keys]
        leading = jnp.broadcast_shapes(*(x.shape[:-1] for x in logits))
        logits = [jnp.broadcast_to(x, (*leading, x.shape[-1])) for x in logits]
        weights = self.drop(jax.nn.softmax(jnp.concatenate(logits, -1)), deterministic)
        weights, out, start = weights.astype(self.dtype), 0.0, 0
        for part in keys:
            stop = start + part.k.shape[-2]
            out += _product_over("qk,kd->qd", weights[..., start:stop], part.v)
            start = stop
        out = jnp.moveaxis(out, -3, -2)
        return self.out(out.reshape(*out.shape[:-2], self.width))

    def _logits(self, q: Array, part: Keys) -> Array:
        logits = _product_over("qd,kd->qk", q, part.k, preferred_element_type=jnp.float32)
        if part.readable is None:
            return logits
        return logits + jnp.where(part.readable, 0.0, HIDDEN_LOGIT)[..., None, :, :]

    def _split_heads(self, x: Array) -> Array:
        """[..., L, C] -> [..., heads, L, C / heads]."""
        x = x.reshape(*x.shape[:-1], self.heads, -1)
        return jnp.moveaxis(x, -2, -3)


class Projected(NamedTuple):
    """Queries, keys and values of tokens, each [..., heads, L, C / heads]."""

    q: Array
    k: Array
    v: Array

    def keys(self, readable: Array | None) -> Keys:
        """Show these tokens to queries."""
        return Keys(self.k, self.v, readable)


class Keys(NamedTuple):
    """Tokens that queries read."""

    k: Array  # [..., heads, L, C / heads]
    v: Array  # [..., heads, L, C / heads]
    # [..., Q, L] or [..., 1, L]: False where a query gives a key exactly no weight; None: nowhere.
    readable: Array | None


def _product_over(axes: str, x: Array, y: Array, **kwargs: jnp.dtype) -> Array:
    """Contract the last two axes of [..., heads, ., .] as `axes` says; one may lack candidates."""
    (left, right), out = (part.split(",") for part in axes.split("->"))
    extra = x.ndim - y.ndim
    batch_x, batch_y = ("...h", "h") if extra > 0 else ("h", "...h") if extra < 0 else ("...h",) * 2
    return jnp.einsum(f"{batch_x}{left},{batch_y}{right}->...h{out[0]}", x, y, **kwargs)


class Block(nn.Module):
    """A pre-norm transformer layer: attention, then a feed-forward block, both residual."""

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

    def __call__(self, x: Array, readable: Array | None, deterministic: bool) -> Array:
        """Map x [..., L, C] to [..., L, C]; who reads whom as in Keys."""
        projected = self.project(x)
        return self.update(x, projected.q, [projected.keys(readable)], deterministic)

    def project(self, x: Array) -> Projected:
        """Prepare tokens [..., L, C] as queries and keys."""
        return self.attention.project(self.norm1(x))

    def project_keys(self, x: Array, readable: Array | None) -> Keys:
        """Prepare tokens [..., L, C] that are only read."""
        return self.attention.project_keys(self.norm1(x), readable)

    def update(self, x: Array, q: Array, keys: Sequence[Keys], deterministic: bool = True) -> Array:
        """Update tokens [..., L, C], of which `q` are the queries, by what they read."""
        x = x + self.drop(self.attention.attend(q, keys, deterministic), deterministic)
        h = networks.gelu(self.ffn_in(self.norm2(x)))
        h = self.ffn_out(self.drop(h, deterministic))
        return x + self.drop(h, deterministic)


class Stack(nn.Module):
    """Transformer layers, independently initialised, with a final LayerNorm."""

    layers: int
    width: int
    heads: int
    hidden: int
    dropout: float
    dtype: jnp.dtype
    remat: bool = False  # keep no more than what enters each layer for its gradient

    def setup(self):
        # Its methods but __call__ are as they were; 3 is `deterministic`, counted from `self`.
        block = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        self.blocks = [
            block(self.width, self.heads, self.hidden, self.dropout, self.dtype, name=f"layer_{i}")
            for i in range(self.layers)
        ]
        self.norm = networks.layer_norm("norm")

    def __call__(self, x: Array, readable: Array | None, deterministic: bool) -> Array:
        """Map tokens x [..., L, C] to [..., L, C]; who reads whom as in Keys."""
        for block in self.blocks:
            x = block(x, readable, deterministic)
        return self.norm(x)

    def together(self, shared: Array, own: Array, key_visible: Array) -> Array:
        """Map the tokens that N candidates share, [L, C], and those of each, [N, K, C].

        What the first layer projects is projected once where it is shared.

        Returns:
            [N, L + K, C], as if every candidate had brought all of its tokens.
        """
        first, *rest = self.blocks
        readable = key_visible[..., None, :]
        parts = zip(first.project(shared), first.project(own), strict=True)
        projected = Projected(*(join_tokens(s, o) for s, o in parts))
        x = join_tokens(shared, own)
        x = first.update(x, projected.q, [projected.keys(readable)])
        for block in rest:
            x = block(x, readable, True)
        return self.norm(x)

    def read(
        self, seen: Array, seen_visible: Array, masks: Array, masks_visible: Array, index: Array
    ) -> Array:
        """Map only the tokens `index`, [Q], of `masks`: what is asked for.

        Args:
            seen: tokens of each candidate, [..., K, C].
            seen_visible: which of them are there, [K].
            masks: tokens that all candidates share, [M, C].
            masks_visible: which of these are there, [M].
            index: rows of `masks`.

        Returns:
            [..., Q, C].
        """
        *earlier, last = self.blocks
        for block in earlier:
            x = join_tokens(masks, seen)
            x = block(x, jnp.concatenate([masks_visible, seen_visible])[None], True)
            masks, seen = jnp.split(x, [masks.shape[-2]], axis=-2)
        asked = last.project(masks)
        keys = [last.project_keys(seen, seen_visible[None]), asked.keys(masks_visible[None])]
        x = last.update(masks[..., index, :], asked.q[..., index, :], keys)
        return self.norm(x)


def join_tokens(shared: Array, own: Array) -> Array:
    """Join tokens on the last axis but one, after giving `shared` the leading axes of `own`."""
    extra = own.ndim - shared.ndim
    shared = jnp.broadcast_to(shared, (*own.shape[:extra], *shared.shape))
    return jnp.concatenate([shared, own], axis=-2)
