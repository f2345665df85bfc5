"""Sums over the parts of a batch: devices at the same time, micro-batches one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.training import sharding


def sum_over_parts(
    compute: Callable[[Any, Array], Any], batch: Any, key: Array, micro_batches: int
) -> Any:
    """Sum what `compute(part, key)` returns, a tree of arrays, over equal parts of a batch.

    Args:
        compute: takes a part, a tree like `batch` with fewer rows, and a key of its own.
        batch: a tree of arrays [B, ...]; numbers [] go to every part.
        key: of the batch; where there is one part, `compute` gets this key itself.
        micro_batches: of every device; together with the devices they divide B.
    """
    shards = sharding.batch_shards()
    if shards == 1:
        return _sum_in_turn(compute, batch, key, micro_batches)
    blocks = sharding.divide(jax.tree.map(lambda x: _split(x, shards), batch))
    sums = jax.vmap(lambda block, key: _sum_in_turn(compute, block, key, micro_batches))(
        blocks, jax.random.split(key, shards)
    )
    return jax.tree.map(lambda x: x.sum(0), sums)


def _sum_in_turn(
    compute: Callable[[Any, Array], Any], batch: Any, key: Array, micro_batches: int
) -> Any:
    """Sum over micro-batches in the memory of one."""
    if micro_batches == 1:
        return compute(batch, key)
    parts = jax.tree.map(lambda x: _deal(x, micro_batches), batch)
    keys = jax.random.split(key, micro_batches)
    shapes = jax.eval_shape(compute, *jax.tree.map(lambda x: x[0], (parts, keys)))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total: Any, part: tuple[Any, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, compute(*part)), None

    return jax.lax.scan(add, zeros, (parts, keys))[0]


def _split(x: Array, parts: int) -> Array:
    """[B, ...] -> [parts, B / parts, ...], consecutive rows; a number is repeated, [parts]."""
    if x.ndim == 0:
        return jnp.broadcast_to(x, (parts,))
    return x.reshape(parts, -1, *x.shape[1:])


def _deal(x: Array, parts: int) -> Array:
    """[B, ...] -> [parts, B / parts, ...], rows dealt out in turn; a number is repeated."""
    if x.ndim == 0:
        return jnp.broadcast_to(x, (parts,))
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
