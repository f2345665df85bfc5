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

from mtm_jax import distributions, networks, queries
from mtm_jax.config import ModelConfig
from mtm_jax.queries import Placed
from mtm_jax.types import ModalitySpec, Tokens, Visible

# Modality -> prediction: [..., T, D] (continuous), [..., T, P, D] logits (categorical)
# or a TanhNormal with fields [..., T, A].
Outputs = dict[str, "Array | distributions.TanhNormal"]


class InitFn(Protocol):
    def __call__(self, key: Array) -> dict: ...


class ApplyFn(Protocol):
    def __call__(
        self, params: dict, tokens: Tokens, visible: Visible, dropout_key: Array | None = None
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
    apply(params, tokens, visible, dropout_key=None) -> outputs. Batched over leading axes;
        masks may differ per sample, and a sample without any visible token is legal.
        Dropout acts when a key is given. Values of hidden inputs have no influence at all.
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
        tokens = {m.name: jnp.zeros(_token_shape(m, config.window)) for m in config.modalities}
        return tokens, {m.name: jnp.ones(config.window, bool) for m in config.modalities}

    def init(key: Array) -> dict:
        return module.init(key, *example())["params"]

    def apply(
        params: dict, tokens: Tokens, visible: Visible, dropout_key: Array | None = None
    ) -> Outputs:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return module.apply({"params": params}, tokens, visible, dropout_key is None, rngs=rngs)

    def encode(params: dict, tokens: Tokens, visible: Visible) -> dict[str, Array]:
        encoded = module.apply({"params": params}, tokens, visible, True, method="encode")
        return _split(encoded, config)

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


def _token_shape(spec: ModalitySpec, window: int) -> tuple[int, ...]:
    if spec.head == "categorical":
        return (window, spec.tokens_per_step, spec.features)
    return (window, spec.features)


def sinusoidal_positions(window: int, width: int) -> Array:
    """Fixed embedding of the window slot, [T, C]: half of [sin | cos], as released."""
    rates = 10_000.0 ** (-jnp.arange(width // 2) / (width // 2))
    angles = jnp.arange(window)[:, None] * rates
    return 0.5 * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def orthogonal_positions(window: int, width: int) -> Array:
    """Fixed embedding of the window slot, [T, C], with no product between different slots.

    [sin | cos] with rates spread evenly up to pi. Neighbours under the released embedding are
    nearly the same vector, so attention learns late to tell which action goes with which state.
    """
    rates = jnp.pi * (jnp.arange(width // 2) + 0.5) / (width // 2)
    angles = jnp.arange(window)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _positions(config: ModelConfig) -> Array:
    make = {"released": sinusoidal_positions, "orthogonal": orthogonal_positions}
    return make[config.positions](config.window, config.width)


def _split(flat: Array, config: ModelConfig) -> dict[str, Array]:
    """Cut [..., sum T P, C] into modality -> [..., T, P, C]."""
    parts, start = {}, 0
    for spec in config.modalities:
        stop = start + config.window * spec.tokens_per_step
        shape = (*flat.shape[:-2], config.window, spec.tokens_per_step, flat.shape[-1])
        parts[spec.name] = flat[..., start:stop, :].reshape(shape)
        start = stop
    return parts


def _join(parts: list[Array]) -> Array:
    """Concatenate [..., T P, C] per modality to [..., sum T P, C]."""
    return jnp.concatenate(parts, axis=-2)


class _MaskedTrajectoryModel(nn.Module):
    config: ModelConfig

    def setup(self):
        c = self.config
        self.dtype = jnp.dtype(c.compute_dtype)
        hidden = c.ffn_multiplier * c.width

        def stack(layers: int, name: str) -> networks.Stack:
            sizes = (layers, c.width, c.heads, hidden)
            return networks.Stack(*sizes, c.dropout, self.dtype, name=name)

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
        self.heads = {m.name: _make_head(m, c.width, self.dtype) for m in c.modalities}

    def _dense(self, name: str) -> nn.Dense:
        return networks.dense(self.config.width, name, dtype=self.dtype)

    def encode(self, tokens: Tokens, visible: Visible, deterministic: bool) -> Array:
        """Encode the visible tokens: -> [..., sum T P, C]."""
        c = self.config
        positions = _positions(c)[:, None]  # [T, 1, C]
        embedded = []
        for spec in c.modalities:
            x = tokens[spec.name]
            chex.assert_shape(x, (..., *_token_shape(spec, c.window)))
            chex.assert_shape(visible[spec.name], (..., c.window))
            if spec.head != "categorical":
                x = x[..., None, :]  # [..., T, P, D]
            x = jnp.where(visible[spec.name][..., None, None], x, 0.0)
            x = self.encoder_embed[spec.name](x) + self.encoder_modality[spec.name] + positions
            embedded.append(x.reshape(*x.shape[:-3], -1, c.width))
        return self.encoder(_join(embedded), self._flat_visible(visible), deterministic)

    def __call__(self, tokens: Tokens, visible: Visible, deterministic: bool = True) -> Outputs:
        c = self.config
        encoded = self.encode(tokens, visible, deterministic)
        positions = _positions(c)[:, None]
        embedded = []
        for name, x in _split(encoded, c).items():
            x = jnp.where(visible[name][..., None, None], x, self.mask_token[name])
            x = self.decoder_embed[name](x) + self.decoder_modality[name] + positions
            embedded.append(x.reshape(*x.shape[:-3], -1, c.width))
        decoded = _split(self.decoder(_join(embedded), None, deterministic), c)
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
            encoded = self.encoder(self._embed(shared), there, True)
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
        decoded = self.decoder.read(_join(seen), there, _join(masks), *where)
        names = [m.name for m in self.config.modalities if m.name in asked]
        pieces = queries.cut(decoded, [len(asked[name]) for name in names])
        return {name: self.heads[name](x) for name, x in zip(names, pieces, strict=True)}

    def _embed(self, group: Mapping[str, Placed]) -> Array:
        """Embed tokens for the encoder: [..., n of all modalities, C]."""
        positions = _positions(self.config)
        embedded = []
        for name, placed in group.items():
            values = jnp.where(placed.there[:, None], placed.values, 0.0)
            x = self.encoder_embed[name](values) + self.encoder_modality[name][0]
            embedded.append(x + positions[placed.slots])
        return _join(embedded)

    def _enter_decoder(self, name: str, x: Array, slots: Array) -> Array:
        """Embed encoded or mask tokens, [..., n, C], for the decoder."""
        positions = _positions(self.config)
        return self.decoder_embed[name](x) + self.decoder_modality[name][0] + positions[slots]

    def _flat_visible(self, visible: Visible) -> Array:
        """[..., sum T P], in the order of the tokens."""
        return jnp.concatenate(
            [jnp.repeat(visible[m.name], m.tokens_per_step, -1) for m in self.config.modalities],
            axis=-1,
        )

    def _predict(self, spec: ModalitySpec, x: Array) -> Array | distributions.TanhNormal:
        out = self.heads[spec.name](x)
        if spec.head == "categorical":
            return out  # [..., T, P, D]
        return jax.tree.map(lambda leaf: leaf[..., 0, :], out)  # P = 1


class _MLPHead(nn.Module):
    """LayerNorm, Linear, GELU, Linear."""

    features: int
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = networks.layer_norm("norm")(x)
        x = networks.dense(self.width, "hidden", dtype=self.dtype)(x)
        # The last product stays in float32: losses and planning read it.
        return networks.dense(self.features, "out")(networks.gelu(x).astype(jnp.float32))


class _TanhNormalHead(nn.Module):
    """One linear layer each for the location and the squashed log standard deviation."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> distributions.TanhNormal:
        orthogonal = nn.initializers.orthogonal()
        loc = networks.dense(self.features, "loc", orthogonal)(x)
        raw = networks.dense(self.features, "log_std", orthogonal)(x)
        return distributions.TanhNormal(loc, distributions.squash_log_std(raw))


def _make_head(spec: ModalitySpec, width: int, dtype: jnp.dtype) -> nn.Module:
    name = f"head_{spec.name}"
    if spec.head == "tanh_normal":
        return _TanhNormalHead(spec.features, name=name)
    return _MLPHead(spec.features, width, dtype, name=name)
