"""Asking the model for some hidden tokens: what is shown, and how many candidates at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.errors import UserError
from mtm_jax.types import ModalitySpec

# Candidates whose activations stay in a processor's cache: large products of rows take up to half
# as long again, and twice as long at small widths.
CHUNK = 128


class Placed(NamedTuple):
    """Some tokens of one modality and where they stand in the window."""

    values: Array  # [n, D], or [N, n, D] where each candidate has its own
    slots: Array  # [n] int, which slots of the window they fill
    there: Array  # [n] bool, False where there is no token: its value has no influence at all


def check(specs: Sequence[ModalitySpec], *named: Mapping[str, object]) -> None:
    """Refuse what cannot be shown or asked for.

    Raises:
        UserError: the model has categorical tokens, or a modality is not one of its own.
    """
    names = tuple(m.name for m in specs)
    categorical = [m.name for m in specs if m.head == "categorical"]
    if categorical:
        raise UserError(
            f"{', '.join(categorical)} of this model are categorical, and only continuous tokens "
            "can be asked for one by one; use whole passes (plan pruned=False)"
        )
    unknown = sorted({name for group in named for name in group} - set(names))
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: this model has no such modality; it has {', '.join(names)}"
        )


def filled(placed: Sequence[Placed], window: int) -> Array:
    """Say which slots of one modality hold a token, [T]."""
    known = jnp.zeros(window, bool)
    for group in placed:
        known = known.at[group.slots].max(group.there)
    return known


def cut(x: Array, lengths: Sequence[int]) -> list[Array]:
    """Cut the tokens of [..., L, C] into pieces of the given lengths."""
    stops = [sum(lengths[: n + 1]) for n in range(len(lengths) - 1)]
    return jnp.split(x, stops, axis=-2)


def by_chunks(
    ask: Callable[[dict[str, Placed]], dict], own: Mapping[str, Placed], size: int = CHUNK
) -> dict:
    """Ask for the candidates of `own`, about `size` at a time on a processor, else all at once.

    Args:
        ask: own tokens of some candidates -> outputs, [N, ...] each.
        own: of all candidates.
        size: candidates of one chunk.
    """
    values = {name: placed.values for name, placed in own.items()}
    total = next(iter(values.values())).shape[0]
    count = max(1, round(total / size))
    rows = -(-total // count)

    def whole(values: dict[str, Array]) -> dict:
        return ask({name: placed._replace(values=values[name]) for name, placed in own.items()})

    def chunked(values: dict[str, Array]) -> dict:
        def lead(x: Array) -> Array:
            x = jnp.pad(x, [(0, count * rows - total), *[(0, 0)] * (x.ndim - 1)])
            return x.reshape(count, rows, *x.shape[1:])

        found = jax.lax.map(whole, jax.tree.map(lead, values))
        return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2)[:total], found)

    if count == 1:
        return whole(values)
    return jax.lax.platform_dependent(values, cpu=chunked, default=whole)
