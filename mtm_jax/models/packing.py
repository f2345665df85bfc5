"""Where visible tokens go when two windows share the slots of one: half the work for an encoder.

Under the masks of training about a third of a batch's tokens is visible. The window that shows
most is paired with the one that shows least, the second most with the second least, and so on:
then nearly always both fit into the slots of one window, where each reads only its own tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.models import layout
from mtm_jax.types import ModalitySpec, Visible

# With fewer windows the second half of the work costs little, and compiling both ways more.
SMALLEST_BATCH = 64


class Pairs(NamedTuple):
    """Places of the visible tokens of B windows with L tokens each, in B / 2 rows of L slots."""

    slot: Array  # [B L] int, of each token, counted over all rows; B / 2 L: hidden
    token: Array  # [B / 2 L] int, in each slot, counted over all windows; B L: none
    readable: Array  # [B / 2, L, L] bool, True where a query reads a key: both of one window


def pair(visible: Array) -> tuple[Pairs, Array]:
    """Give the visible tokens of every two windows the slots of one.

    Args:
        visible: [B, L] with an even B.

    Returns:
        The places, and whether every pair fits, [] bool; if not, they are of no use.
    """
    windows, length = visible.shape
    rows, slots = windows // 2, jnp.arange(length)
    order = jnp.argsort(visible.sum(-1))
    first, second = order[:rows], order[::-1][:rows]
    both = jnp.concatenate([visible[first], visible[second]], axis=-1)  # [R, 2 L]
    upto = jnp.cumsum(both, axis=-1)
    source = (upto[:, None] <= slots[:, None]).sum(-1)  # [R, L], an index into `both`
    window = jnp.where(source < length, first[:, None], second[:, None])
    used, ends = upto[:, -1:], upto[:, length - 1, None]  # of both windows, of the first
    token = jnp.where(slots < used, window * length + source % length, windows * length)
    slot = jnp.where(both, jnp.arange(rows)[:, None] * length + upto - 1, rows * length)
    slot = jnp.concatenate(jnp.split(slot, 2, axis=-1))  # rows in the order `first`, `second`
    back = jnp.argsort(jnp.concatenate([first, second]))
    owner = (slots >= ends).astype(int) + (slots >= used)  # [R, L]: first, second, none
    readable = owner[:, :, None] == owner[:, None, :]
    return Pairs(slot[back].ravel(), token.ravel(), readable), (used <= length).all()


def in_pairs_if_they_fit(
    specs: Sequence[ModalitySpec],
    visible: Visible,
    compute: Callable[[Pairs | None], Any],
) -> Any:
    """Compute with the pairs of windows, `visible` modality -> [B, T], if they fit, else with None.

    Gradients belong inside `compute`: around the choice they would keep room for what either way
    remembers. Under `vmap` all choose alike, pairs only if those of all fit, so that one way is
    computed.
    """
    flat = layout.flat_visible(specs, visible)
    if flat.shape[0] < SMALLEST_BATCH or flat.shape[0] % 2:
        return compute(None)
    pairs, fit = pair(flat)
    return jax.lax.cond(_all_under_vmap(fit), lambda: compute(pairs), lambda: compute(None))


@jax.custom_batching.custom_vmap
def _all_under_vmap(flag: Array) -> Array:
    """Return a flag; under `vmap` whether those of all are set, without the mapped axis."""
    return flag


@_all_under_vmap.def_vmap
def _reduce_all(size: int, batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return _all_under_vmap(flag.all(0) if batched[0] else flag), False


def through(pairs: Pairs, x: Array, encoder: Callable[[Array, Array], Array]) -> Array:
    """Encode the visible tokens of x [B, L, C] in their places: -> [B, L, C], zero where hidden.

    `encoder` takes rows, [B / 2, L, C], and what is readable.
    """
    width = x.shape[-1]
    rows = move(x.reshape(-1, width), pairs.token, pairs.slot)
    rows = encoder(rows.reshape(*pairs.readable.shape[:-1], width), pairs.readable)
    return move(rows.reshape(-1, width), pairs.slot, pairs.token).reshape(x.shape)


@jax.custom_vjp
def move(x: Array, source: Array, target: Array) -> Array:
    """Move rows [N, C] to [M, C]; differentiable in reverse mode.

    The gradient moves rows back. The derived one would add them up one by one.

    Args:
        x: the rows.
        source: [M] int, the row of `x` that comes to each place; N: zeros.
        target: [N] int, the place that each row of `x` goes to; M: none.
    """
    return jnp.take(x, source, axis=0, mode="fill", fill_value=0)


def _move_forward(x: Array, source: Array, target: Array) -> tuple[Array, tuple[Array, Array]]:
    return move(x, source, target), (source, target)


def _move_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, None, None]:
    source, target = saved
    return move(grad, target, source), None, None


move.defvjp(_move_forward, _move_backward)
