"""The pruned forward pass: some hidden tokens, at the cost of what is visible and asked for.

A planner shows the model the same history with many candidates and reads a few tokens of each.
The pass leaves hidden tokens out of the encoder, computes once what candidates share, and in the
last layer of the decoder updates only the tokens that are asked for. It uses the parameters of the
plain model and gives the same numbers; everything here is without dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax.errors import UserError
from mtm_jax.models import heads, layout, positions, pruned_layers
from mtm_jax.types import ModalitySpec

# Candidates whose activations fit into the cache of a CPU: matmuls of more rows take up to half as
# long again, and twice as long at small widths.
CHUNK = 128


class Placed(NamedTuple):
    """Some tokens of one modality and where they stand in the window."""

    values: Array  # [n, D], or [N, n, D] where each candidate has its own
    slots: Array  # [n] int, which slots of the window they fill
    present: Array  # [n] bool, False where there is no token: its value has no influence at all


class QueryFn(Protocol):
    def __call__(
        self,
        params: dict,
        shared: Mapping[str, Placed],
        own: Mapping[str, Placed] | None,
        asked: Mapping[str, Array],
    ) -> heads.Outputs: ...


def make_query(module: nn.Module) -> QueryFn:
    """Make `Model.query` of a masked trajectory model, see `trajectory_model.make_model`."""

    def query(
        params: dict,
        shared: Mapping[str, Placed],
        own: Mapping[str, Placed] | None,
        asked: Mapping[str, Array],
    ) -> heads.Outputs:
        check(module.config.modalities, shared, own or {}, asked)

        def ask(own: Mapping[str, Placed]) -> heads.Outputs:
            return module.apply({"params": params}, shared, own, asked, method=predict)

        return by_chunks(ask, own) if own else ask({})

    return query


def check(specs: Sequence[ModalitySpec], *named: Mapping[str, object]) -> None:
    """Refuse what cannot be shown or asked for.

    Raises:
        UserError: the model has categorical tokens, or lacks a modality that is named.
    """
    names = tuple(m.name for m in specs)
    categorical = [m.name for m in specs if m.head == "categorical"]
    if categorical:
        raise UserError(
            f"{', '.join(categorical)} of this model are categorical, and only continuous tokens "
            "can be asked for one by one; use full forward passes (plan pruned=False)"
        )
    unknown = sorted({name for group in named for name in group} - set(names))
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: this model has no such modality; it has {', '.join(names)}"
        )


def predict(
    module: nn.Module,
    shared: Mapping[str, Placed],
    own: Mapping[str, Placed],
    asked: Mapping[str, Array],
) -> heads.Outputs:
    """Predict the hidden tokens `asked` with a bound module; see `trajectory_model.make_model`."""
    names, groups = [m.name for m in module.config.modalities], [*shared.items(), *own.items()]
    present = jnp.concatenate([placed.present for _, placed in groups])
    if own:
        embedded = _embed(module, shared), _embed(module, own)
        encoded = pruned_layers.encode_candidates(module.encoder, *embedded, present)
    else:
        encoded = module.encoder(_embed(module, shared), present[None], True)
    pieces = _cut(encoded, [len(placed.slots) for _, placed in groups])
    visible = [
        _enter_decoder(module, name, piece, placed.slots)
        for (name, placed), piece in zip(groups, pieces, strict=True)
    ]
    masks, hidden = _mask_tokens(module, groups)
    window = module.config.window
    index = [names.index(name) * window + asked[name] for name in names if name in asked]
    decoded = pruned_layers.decode_asked(
        module.decoder, layout.join(visible), present, masks, hidden, jnp.concatenate(index)
    )
    names = [name for name in names if name in asked]
    pieces = _cut(decoded, [len(asked[name]) for name in names])
    return {name: module.heads[name](x) for name, x in zip(names, pieces, strict=True)}


def _embed(module: nn.Module, group: Mapping[str, Placed]) -> Array:
    """Embed tokens for the encoder: [..., n of all modalities, C]."""
    at_slots = positions.make_positions(module.config)
    embedded = []
    for name, placed in group.items():
        values = jnp.where(placed.present[:, None], placed.values, 0.0)
        x = module.encoder_embed[name](values) + module.encoder_modality[name][0]
        embedded.append(x + at_slots[placed.slots])
    return layout.join(embedded)


def _enter_decoder(module: nn.Module, name: str, x: Array, slots: Array) -> Array:
    """Embed encoded or mask tokens, [..., n, C], for the decoder."""
    at_slots = positions.make_positions(module.config)
    return module.decoder_embed[name](x) + module.decoder_modality[name][0] + at_slots[slots]


def _mask_tokens(module: nn.Module, groups: Sequence[tuple[str, Placed]]) -> tuple[Array, Array]:
    """Embed a mask token for every slot, [M T, C]; True where one stands for a hidden token."""
    window, masks, hidden = module.config.window, [], []
    for name in (m.name for m in module.config.modalities):
        rows = jnp.broadcast_to(module.mask_token[name], (window, module.config.width))
        masks.append(_enter_decoder(module, name, rows, jnp.arange(window)))
        known = jnp.zeros(window, bool)
        for placed in (p for n, p in groups if n == name):
            known = known.at[placed.slots].max(placed.present)
        hidden.append(~known)
    return layout.join(masks), jnp.concatenate(hidden)


def _cut(x: Array, lengths: Sequence[int]) -> list[Array]:
    """Cut the tokens of [..., L, C] into pieces of the given lengths."""
    stops = [sum(lengths[: n + 1]) for n in range(len(lengths) - 1)]
    return jnp.split(x, stops, axis=-2)


def by_chunks(
    ask: Callable[[dict[str, Placed]], dict], own: Mapping[str, Placed], size: int = CHUNK
) -> dict:
    """Ask for all candidates of `own`, on a CPU about `size` at a time.

    Args:
        ask: own tokens of some candidates -> outputs, [N, ...] each.
        own: of all candidates.
        size: candidates of one chunk.
    """
    values = {name: placed.values for name, placed in own.items()}
    total = next(iter(values.values())).shape[0]
    count = max(1, round(total / size))
    rows = -(-total // count)

    def at_once(values: dict[str, Array]) -> dict:
        return ask({name: placed._replace(values=values[name]) for name, placed in own.items()})

    def chunked(values: dict[str, Array]) -> dict:
        def split(x: Array) -> Array:
            x = jnp.pad(x, [(0, count * rows - total), *[(0, 0)] * (x.ndim - 1)])
            return x.reshape(count, rows, *x.shape[1:])

        found = jax.lax.map(at_once, jax.tree.map(split, values))
        return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2)[:total], found)

    return chunked(values) if chunks_pay() and count > 1 else at_once(values)


def chunks_pay() -> bool:
    """Whether programs run where a cache is to be filled, on a CPU; else all goes at once.

    Not `jax.lax.platform_dependent`, which traces both ways, and those within them, every time.
    """
    return jax.default_backend() == "cpu"
