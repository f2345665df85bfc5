"""A batch computed in parts, one after the other, which takes the memory of one part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def over_parts(compute: Callable[[Any, Array], Any], batch: Any, key: Array, parts: int) -> Any:
    """Sum what `compute(part, key)` returns, a tree of arrays, over equal parts of a batch.

    Args:
        compute: takes a part, a tree like `batch` with B / parts rows, and a key of its own.
        batch: a tree of arrays [B, ...].
        key: of the whole; it goes to `compute` as it is where there is one part.
        parts: how many; it divides B.
    """
    if parts == 1:
        return compute(batch, key)
    rows = jax.tree.map(lambda x: _take_turns(x, parts), batch)
    keys = jax.random.split(key, parts)
    shapes = jax.eval_shape(compute, *jax.tree.map(lambda x: x[0], (rows, keys)))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total: Any, part: tuple[Any, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, compute(*part)), None

    return jax.lax.scan(add, zeros, (rows, keys))[0]


def _take_turns(x: Array, parts: int) -> Array:
    """[B, ...] -> [parts, B / parts, ...], rows dealt out in turn: devices keep theirs."""
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
