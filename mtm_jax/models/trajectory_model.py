"""The masked trajectory model: a bidirectional encoder-decoder over modality tokens.

The encoder sees the visible tokens only; the decoder sees every slot, encoded tokens where they
are visible and a learned mask token per modality elsewhere, and predicts all of them
(MTM section 3.1, M3PC section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax import distributions
from mtm_jax.config import ModelConfig
from mtm_jax.models import heads, layout, networks, positions, queries, transformer
from mtm_jax.models import packing as gathering
from mtm_jax.models.queries import Placed
from mtm_jax.types import ModalitySpec, Tokens, Visible

# Modality -> prediction: [..., T, D] (continuous), [..., T, P, D] logits (categorical)
# or a TanhNormal with fields [..., T, A].
Outputs = dict[str, "Array | distributions.TanhNormal"]


class InitFn(Protocol):
    def __call__(self, key: Array) -> dict: ...


class ApplyFn(Protocol):
    def __call__(
        self,
        params: dict,
        tokens: Tokens,
        visible: Visible,
        dropout_key: Array | None = None,
        pairs: gathering.Pairs | None = None,
    ) -> Outputs: ...


class EncodeFn(Protocol):
    def __call__(self, params: dict, tokens: Tokens, visible: Visible) -> dict[str, Array]: ...


class QueryFn(Protocol):
    def __call__(
        self,
        params: dict,
        shared: Mapping[str, Placed],
        own: Mapping[str, Placed] | None,
        asked: Mapping[str, Array],
    ) -> Outputs: ...


class Model(NamedTuple):
    """The pure functions of one model; see `make_model`."""

    config: ModelConfig
    init: InitFn
    apply: ApplyFn
    encode: EncodeFn
    query: QueryFn


def make_model(config: ModelConfig) -> Model:
    """Build the functions of one configuration.

    init(key) -> params, a plain dict of float32 arrays.
    apply(params, tokens, visible, dropout_key=None, pairs=None) -> outputs. Batched over leading
        axes; masks may differ per sample, and a sample without any visible token is legal.
        Dropout acts when a key is given. Values of hidden inputs have no influence at all.
        With the `pairs` of a batch [B, ...] that fit, the same numbers for half the encoder's work.
    encode(params, tokens, visible) -> modality -> [..., T, P, C], the encoder's output;
        rows of hidden tokens carry no meaning.
    query(params, shared, own, asked) -> outputs at the slots `asked`, modality -> [Q]. The same
        numbers as `apply`, for hidden tokens only, at the cost of what is visible and asked for;
        slots and presence may be traced. `shared` tokens are those of all N candidates; `own`,
        those of each, or None: one window, without the axis N. Without dropout; not for
        categorical tokens.
    """
    module = _MaskedTrajectoryModel(config)

    def example() -> tuple[Tokens, Visible]:
        tokens = {
            m.name: jnp.zeros(layout.token_shape(m, config.window)) for m in config.modalities
        }
        return tokens, {m.name: jnp.ones(config.window, bool) for m in config.modalities}

    def init(key: Array) -> dict:
        return module.init(key, *example())["params"]

    def apply(
        params: dict,
        tokens: Tokens,
        visible: Visible,
        dropout_key: Array | None = None,
        pairs: gathering.Pairs | None = None,
    ) -> Outputs:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        inputs = tokens, visible, dropout_key is None, pairs
        return module.apply({"params": params}, *inputs, rngs=rngs)

    def encode(params: dict, tokens: Tokens, visible: Visible) -> dict[str, Array]:
        encoded = module.apply({"params": params}, tokens, visible, True, method="encode")
        return layout.split(encoded, config)

    def query(
        params: dict,
        shared: Mapping[str, Placed],
        own: Mapping[str, Placed] | None,
        asked: Mapping[str, Array],
    ) -> Outputs:
        queries.check(config.modalities, shared, own or {}, asked)

        def ask(own: Mapping[str, Placed]) -> Outputs:
            return module.apply({"params": params}, shared, own, asked, method="query")

        return queries.by_chunks(ask, own) if own else ask({})

    return Model(config, init, apply, encode, query)


class _MaskedTrajectoryModel(nn.Module):
    config: ModelConfig

    def setup(self):
        c = self.config
        self.dtype = jnp.dtype(c.compute_dtype)
        hidden = c.ffn_multiplier * c.width

        def stack(layers: int, name: str) -> transformer.Stack:
            sizes = (layers, c.width, c.heads, hidden)
            return transformer.Stack(*sizes, c.dropout, self.dtype, c.remat, name=name)

        self.encoder = stack(c.encoder_layers, "encoder")
        self.decoder = stack(c.decoder_layers, "decoder")
        zeros = nn.initializers.zeros_init()
        self.encoder_embed = {m.name: self._dense(f"encoder_embed_{m.name}") for m in c.modalities}
        self.decoder_embed = {m.name: self._dense(f"decoder_embed_{m.name}") for m in c.modalities}
        self.encoder_modality = {
            m.name: self.param(f"encoder_modality_{m.name}", zeros, (m.tokens_per_step, c.width))
            for m in c.modalities
        }
        self.decoder_modality = {
            m.name: self.param(f"decoder_modality_{m.name}", zeros, (m.tokens_per_step, c.width))
            for m in c.modalities
        }
        self.mask_token = {
            m.name: self.param(f"mask_token_{m.name}", zeros, (c.width,)) for m in c.modalities
        }
        self.heads = {m.name: heads.make_head(m, c.width, self.dtype) for m in c.modalities}

    def _dense(self, name: str) -> nn.Dense:
        return networks.dense(self.config.width, name, dtype=self.dtype)

    def encode(
        self,
        tokens: Tokens,
        visible: Visible,
        deterministic: bool,
        pairs: gathering.Pairs | None = None,
    ) -> Array:
        """Encode the visible tokens: -> [..., sum T P, C]."""
        c = self.config
        at_slots = positions.make_positions(c)[:, None]  # [T, 1, C]
        embedded = []
        for spec in c.modalities:
            x = tokens[spec.name]
            chex.assert_shape(x, (..., *layout.token_shape(spec, c.window)))
            chex.assert_shape(visible[spec.name], (..., c.window))
            if spec.head != "categorical":
                x = x[..., None, :]  # [..., T, P, D]
            x = jnp.where(visible[spec.name][..., None, None], x, 0.0)
            x = self.encoder_embed[spec.name](x) + self.encoder_modality[spec.name] + at_slots
            embedded.append(x.reshape(*x.shape[:-3], -1, c.width))
        x = layout.join(embedded)
        if pairs is not None:
            return gathering.through(pairs, x, lambda x, read: self.encoder(x, read, deterministic))
        flat = layout.flat_visible(c.modalities, visible)
        return self.encoder(x, flat[..., None, :], deterministic)

    def __call__(
        self,
        tokens: Tokens,
        visible: Visible,
        deterministic: bool = True,
        pairs: gathering.Pairs | None = None,
    ) -> Outputs:
        c = self.config
        encoded = self.encode(tokens, visible, deterministic, pairs)
        at_slots = positions.make_positions(c)[:, None]
        embedded = []
        for name, x in layout.split(encoded, c).items():
            x = jnp.where(visible[name][..., None, None], x, self.mask_token[name])
            x = self.decoder_embed[name](x) + self.decoder_modality[name] + at_slots
            embedded.append(x.reshape(*x.shape[:-3], -1, c.width))
        decoded = layout.split(self.decoder(layout.join(embedded), None, deterministic), c)
        return {spec.name: self._predict(spec, decoded[spec.name]) for spec in c.modalities}

    def query(
        self,
        shared: Mapping[str, Placed],
        own: Mapping[str, Placed],
        asked: Mapping[str, Array],
    ) -> Outputs:
        """Predict the hidden tokens `asked`; see `make_model`."""
        window, groups = self.config.window, [*shared.items(), *own.items()]
        there = jnp.concatenate([placed.there for _, placed in groups])
        if own:
            encoded = self.encoder.together(self._embed(shared), self._embed(own), there)
        else:
            encoded = self.encoder(self._embed(shared), there[None], True)
        pieces = queries.cut(encoded, [len(placed.slots) for _, placed in groups])
        seen = [
            self._enter_decoder(name, piece, placed.slots)
            for (name, placed), piece in zip(groups, pieces, strict=True)
        ]
        masks, hidden, index = [], [], []
        for rank, name in enumerate(m.name for m in self.config.modalities):
            rows = jnp.broadcast_to(self.mask_token[name], (window, self.config.width))
            masks.append(self._enter_decoder(name, rows, jnp.arange(window)))
            hidden.append(~queries.filled([p for n, p in groups if n == name], window))
            if name in asked:
                index.append(rank * window + asked[name])
        where = jnp.concatenate(hidden), jnp.concatenate(index)
        decoded = self.decoder.read(layout.join(seen), there, layout.join(masks), *where)
        names = [m.name for m in self.config.modalities if m.name in asked]
        pieces = queries.cut(decoded, [len(asked[name]) for name in names])
        return {name: self.heads[name](x) for name, x in zip(names, pieces, strict=True)}

    def _embed(self, group: Mapping[str, Placed]) -> Array:
        """Embed tokens for the encoder: [..., n of all modalities, C]."""
        at_slots = positions.make_positions(self.config)
        embedded = []
        for name, placed in group.items():
            values = jnp.where(placed.there[:, None], placed.values, 0.0)
            x = self.encoder_embed[name](values) + self.encoder_modality[name][0]
            embedded.append(x + at_slots[placed.slots])
        return layout.join(embedded)

    def _enter_decoder(self, name: str, x: Array, slots: Array) -> Array:
        """Embed encoded or mask tokens, [..., n, C], for the decoder."""
        at_slots = positions.make_positions(self.config)
        return self.decoder_embed[name](x) + self.decoder_modality[name][0] + at_slots[slots]

    def _predict(self, spec: ModalitySpec, x: Array) -> Array | distributions.TanhNormal:
        out = self.heads[spec.name](x)
        if spec.head == "categorical":
            return out  # [..., T, P, D]
        return jax.tree.map(lambda leaf: leaf[..., 0, :], out)  # P = 1
