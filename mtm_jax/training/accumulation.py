"""A batch computed in parts: one after the other, in the memory of one, and on several devices.

Functions that take an `axis` run on every device of a mesh, where it names the axis over which
batches are divided; None: there is one device.
"""

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


def parts_of(axis: str | None) -> int:
    """How many devices a batch is divided among."""
    return 1 if axis is None else jax.lax.axis_size(axis)


def own_part(tree: Any, axis: str | None) -> Any:
    """Take this device's block of rows, [B / devices, ...], of a tree of arrays [B, ...]."""
    if axis is None:
        return tree
    parts, place = jax.lax.axis_size(axis), jax.lax.axis_index(axis)

    def take(x: Array) -> Array:
        rows = x.shape[0] // parts
        return jax.lax.dynamic_slice_in_dim(x, place * rows, rows)

    return jax.tree.map(take, tree)


def own_key(key: Array, axis: str | None) -> Array:
    """Give every device a key of its own."""
    return key if axis is None else jax.random.fold_in(key, jax.lax.axis_index(axis))


def sum_over(tree: Any, axis: str | None) -> Any:
    """Sum a tree of arrays over devices."""
    return tree if axis is None else jax.lax.psum(tree, axis)
