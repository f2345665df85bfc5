"""The layers of the transformer in the pruned pass; see `pruned`. Stacks and blocks are bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax.models import networks, transformer


class Keys(NamedTuple):
    """Keys and values that queries attend to."""

    k: Array  # [..., heads, L, C / heads]
    v: Array  # [..., heads, L, C / heads]
    present: Array  # [L] bool, False where a key has no influence


def encode_candidates(stack: transformer.Stack, shared: Array, own: Array, present: Array) -> Array:
    """Encode the tokens that N candidates share, [L, C], with those of each, [N, K, C].

    What the first layer projects is projected once where it is shared.

    Args:
        stack: bound layers.
        shared, own: the tokens.
        present: which of them exist, [L + K].

    Returns:
        [N, L + K, C], as if every candidate had brought all of its tokens.
    """
    first, *rest = stack.blocks
    parts = zip(_project(first, shared), _project(first, own), strict=True)
    q, k, v = (_join(s, o) for s, o in parts)
    x = _update(first, _join(shared, own), q, [Keys(k, v, present)])
    for block in rest:
        x = block(x, present[None], True)
    return stack.norm(x)


def decode_asked(
    stack: transformer.Stack,
    visible: Array,
    present: Array,
    masks: Array,
    hidden: Array,
    asked: Array,
) -> Array:
    """Decode some of the mask tokens.

    Args:
        stack: bound layers.
        visible: encoded tokens of each candidate, [..., K, C].
        present: which of them exist, [K].
        masks: mask tokens, which all candidates share, [M, C].
        hidden: which of these stand for a hidden token, [M].
        asked: rows of `masks` to decode, [Q].

    Returns:
        [..., Q, C].
    """
    *earlier, last = stack.blocks
    for block in earlier:
        x = block(_join(masks, visible), jnp.concatenate([hidden, present])[None], True)
        masks, visible = jnp.split(x, [masks.shape[-2]], axis=-2)
    q, k, v = _project(last, masks)
    keys = [_project_keys(last, visible, present), Keys(k, v, hidden)]
    return stack.norm(_update(last, masks[..., asked, :], q[..., asked, :], keys))


def _project(block: transformer.Block, x: Array) -> tuple[Array, Array, Array]:
    """Queries, keys and values of tokens, each [..., heads, L, C / heads]."""
    return block.attention.project(block.norm1(x))


def _project_keys(block: transformer.Block, x: Array, present: Array) -> Keys:
    """Keys of tokens that attend to nothing themselves."""
    attention = block.attention
    kernel, bias = (attention.qkv.variables["params"][name] for name in ("kernel", "bias"))
    x, kernel, bias = (part.astype(attention.dtype) for part in (block.norm1(x), kernel, bias))
    kv = networks.matmul(x, kernel[:, attention.width :]) + bias[attention.width :]
    k, v = jnp.split(kv, 2, axis=-1)
    return Keys(attention.split_heads(k), attention.split_heads(v), present)


def _update(block: transformer.Block, x: Array, q: Array, keys: Sequence[Keys]) -> Array:
    """Apply a layer to tokens [..., L, C] with queries `q`, which attend to all keys."""
    x = x + _attend(block.attention, q, keys)
    return x + block.feed_forward(block.norm2(x), True)


def _attend(attention: transformer.Attention, q: Array, keys: Sequence[Keys]) -> Array:
    """Attend to all keys together, [..., heads, L, C / heads] -> [..., L, C].

    Parts may lack leading axes that others have: what candidates share is computed once.
    """
    logits = [_logits(q * q.shape[-1] ** -0.5, part) for part in keys]
    leading = jnp.broadcast_shapes(*(x.shape[:-1] for x in logits))
    logits = [jnp.broadcast_to(x, (*leading, x.shape[-1])) for x in logits]
    weights = jax.nn.softmax(jnp.concatenate(logits, -1)).astype(attention.dtype)
    stops = np.cumsum([part.k.shape[-2] for part in keys])
    pieces = zip(jnp.split(weights, stops[:-1], axis=-1), keys, strict=True)
    return attention.merge(sum(_matmul_over_heads("qk,kd->qd", w, part.v) for w, part in pieces))


def _logits(q: Array, part: Keys) -> Array:
    logits = _matmul_over_heads("qd,kd->qk", q, part.k, preferred_element_type=jnp.float32)
    return logits + transformer.mask_bias(part.present[None])


def _matmul_over_heads(axes: str, x: Array, y: Array, **kwargs: jnp.dtype) -> Array:
    """Contract the last two axes of [..., heads, ., .] as `axes` says; one may lack candidates."""
    (left, right), out = (part.split(",") for part in axes.split("->"))
    extra = x.ndim - y.ndim
    batch_x, batch_y = ("...h", "h") if extra > 0 else ("h", "...h") if extra < 0 else ("...h",) * 2
    return jnp.einsum(f"{batch_x}{left},{batch_y}{right}->...h{out[0]}", x, y, **kwargs)


def _join(shared: Array, own: Array) -> Array:
    """Concatenate tokens, [..., L, C], after giving `shared` the leading axes of `own`."""
    extra = own.ndim - shared.ndim
    shared = jnp.broadcast_to(shared, (*own.shape[:extra], *shared.shape))
    return jnp.concatenate([shared, own], axis=-2)
