"""Sequence packing: the visible tokens of two windows share one sequence, half the encoder's work.

Under the training masks about a third of a batch's tokens are visible. The window with the most
visible tokens is packed with the one with the fewest, the second most with the second fewest, and
so on: then nearly always both fit into the length of one window. Each attends to its own tokens.
Where two do not fit, the same program takes the windows in two turns, in which each has a sequence
to itself: a second program, without packing, would take as long to compile as the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.models import layout
from mtm_jax.types import ModalitySpec, Visible

# In smaller batches packing saves little time.
MIN_BATCH = 64


class Packed(NamedTuple):
    """Where the visible tokens of B windows of L tokens stand in B / 2 sequences of L slots."""

    slot: Array  # [B L] int, of each token, counted over all sequences; B / 2 L: hidden
    token: Array  # [B / 2 L] int, in each slot, counted over all windows; B L: none
    attention_mask: Array  # [B / 2, L, L] bool, True within one window


def fits(visible: Array) -> Array:
    """Whether the visible tokens of every two windows fit into one sequence, [].

    Args:
        visible: [B, L] with an even B.
    """
    counts = jnp.sort(visible.sum(-1))
    return (counts + counts[::-1]).max() <= visible.shape[-1]


def pack(visible: Array) -> Packed:
    """Assign the visible tokens of every two windows to the slots of one sequence.

    Args:
        visible: [B, L] with an even B; every two windows must fit, see `fits`.
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
    segment = (slots >= ends).astype(int) + (slots >= used)  # [R, L]: first, second, none
    attention_mask = segment[:, :, None] == segment[:, None, :]
    return Packed(slot[back].ravel(), token.ravel(), attention_mask)


def sum_over_turns(
    specs: Sequence[ModalitySpec],
    visible: Visible,
    compute: Callable[[Array | None, Packed | None], Any],
) -> Any:
    """Sum what `compute(taken, packed)` returns, a tree of arrays, over one turn or two.

    In a turn it computes the windows `taken`, [B] bool, under their packing: all of them in one
    turn if every two fit, else every second one in each of two. Small batches are not packed, and
    both are None. Under `vmap` all members take as many turns as the one with most.

    Gradients belong inside `compute`: the number of turns depends on the data.

    Args:
        specs: modalities of the model.
        visible: modality -> [B, T].
        compute: the work on the batch; windows that are not taken must add nothing.
    """
    flat = layout.flat_visible(specs, visible)
    windows = flat.shape[0]
    if windows < MIN_BATCH or windows % 2:
        return compute(None, None)
    turns = jnp.where(_all_under_vmap(fits(flat)), 1, 2)

    def turn(k: Array) -> Any:
        taken = jnp.arange(windows) % turns == k
        return compute(taken, pack(flat & taken[:, None]))

    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(turn, 0))
    add = lambda k, total: jax.tree.map(jnp.add, total, turn(k))  # noqa: E731
    return jax.lax.fori_loop(0, turns, add, zeros)


@jax.custom_batching.custom_vmap
def _all_under_vmap(flag: Array) -> Array:
    """Return a flag; under `vmap` whether those of all are set, without the mapped axis."""
    return flag


@_all_under_vmap.def_vmap
def _reduce_all(size: int, batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return _all_under_vmap(flag.all(0) if batched[0] else flag), False


def encode(packed: Packed, x: Array, encoder: Callable[[Array, Array], Array]) -> Array:
    """Encode the visible tokens of x [B, L, C] as packed: -> [B, L, C], zero where hidden.

    Args:
        packed: the packing of the batch.
        x: its tokens.
        encoder: (sequences [B / 2, L, C], attention mask [B / 2, L, L]) -> [B / 2, L, C].
    """
    width = x.shape[-1]
    rows = gather_rows(x.reshape(-1, width), packed.token, packed.slot)
    rows = rows.reshape(*packed.attention_mask.shape[:-1], width)
    rows = encoder(rows, packed.attention_mask)
    return gather_rows(rows.reshape(-1, width), packed.slot, packed.token).reshape(x.shape)


@jax.custom_vjp
def gather_rows(x: Array, source: Array, target: Array) -> Array:
    """Gather rows, [N, C] -> [M, C], each at most once; differentiable in reverse mode.

    The gradient is a gather too; the derived one would be a scatter-add, which is slower.

    Args:
        x: the rows.
        source: [M] int, the row of `x` for each place; N: zeros.
        target: [N] int, the place of each row of `x`; M: none.
    """
    return jnp.take(x, source, axis=0, mode="fill", fill_value=0)


def _gather_forward(x: Array, source: Array, target: Array) -> tuple[Array, tuple[Array, Array]]:
    return gather_rows(x, source, target), (source, target)


def _gather_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, None, None]:
    source, target = saved
    return gather_rows(grad, target, source), None, None


gather_rows.defvjp(_gather_forward, _gather_backward)
