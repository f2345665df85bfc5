"""The masked trajectory model: a bidirectional encoder-decoder over modality tokens.

The encoder sees the visible tokens only; the decoder sees every slot, encoded tokens where they
are visible and a learned mask token per modality elsewhere, and predicts all of them
(MTM section 3.1, M3PC section 4.1).
"""

from __future__ import annotations

import functools
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax import distributions
from mtm_jax.config import ModelConfig
from mtm_jax.models import heads, layout, networks, packing, positions, pruned, transformer
from mtm_jax.models.heads import Outputs
from mtm_jax.types import ModalitySpec, Tokens, Visible


class InitFn(Protocol):
    def __call__(self, key: Array) -> dict: ...


class ApplyFn(Protocol):
    def __call__(
        self,
        params: dict,
        tokens: Tokens,
        visible: Visible,
        dropout_key: Array | None = None,
        packed: packing.Packed | None = None,
    ) -> Outputs: ...


class EncodeFn(Protocol):
    def __call__(self, params: dict, tokens: Tokens, visible: Visible) -> dict[str, Array]: ...


class Model(NamedTuple):
    """The pure functions of one model; see `make_model`."""

    config: ModelConfig
    init: InitFn
    apply: ApplyFn
    encode: EncodeFn
    query: pruned.QueryFn


@functools.lru_cache(maxsize=64)
def make_model(config: ModelConfig) -> Model:
    """Build the functions of one configuration, the same ones each time: they compile once.

    init(key) -> params, a plain dict of float32 arrays.
    apply(params, tokens, visible, dropout_key=None, packed=None) -> outputs. Batched over leading
        axes; masks may differ per sample, and a sample without any visible token is legal.
        Dropout acts when a key is given. Values of hidden inputs have no influence at all.
        `packed`, the packing of a batch [B, ...], gives the same numbers for half the encoder's
        work.
    encode(params, tokens, visible) -> modality -> [..., T, P, C], the encoder's output;
        rows of hidden tokens carry no meaning.
    query(params, shared, own, asked) -> outputs at the slots `asked`, modality -> [Q]. The same
        numbers as `apply`, for hidden tokens only, at the cost of what is visible and asked for
        (see `pruned`); slots and presence may be traced. All N candidates share the tokens
        `shared`; each has its `own`, or None: one window, without the axis N. Without dropout;
        not for categorical tokens.
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
        packed: packing.Packed | None = None,
    ) -> Outputs:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        inputs = tokens, visible, dropout_key is None, packed
        return module.apply({"params": params}, *inputs, rngs=rngs)

    def encode(params: dict, tokens: Tokens, visible: Visible) -> dict[str, Array]:
        encoded = module.apply({"params": params}, tokens, visible, True, method="encode")
        return layout.split(encoded, config)

    return Model(config, init, apply, encode, pruned.make_query(module))


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
        packed: packing.Packed | None = None,
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
        if packed is not None:
            return packing.encode(packed, x, lambda x, mask: self.encoder(x, mask, deterministic))
        flat = layout.flat_visible(c.modalities, visible)
        return self.encoder(x, flat[..., None, :], deterministic)

    def __call__(
        self,
        tokens: Tokens,
        visible: Visible,
        deterministic: bool = True,
        packed: packing.Packed | None = None,
    ) -> Outputs:
        c = self.config
        encoded = self.encode(tokens, visible, deterministic, packed)
        at_slots = positions.make_positions(c)[:, None]
        embedded = []
        for name, x in layout.split(encoded, c).items():
            x = jnp.where(visible[name][..., None, None], x, self.mask_token[name])
            x = self.decoder_embed[name](x) + self.decoder_modality[name] + at_slots
            embedded.append(x.reshape(*x.shape[:-3], -1, c.width))
        decoded = layout.split(self.decoder(layout.join(embedded), None, deterministic), c)
        return {spec.name: self._predict(spec, decoded[spec.name]) for spec in c.modalities}

    def _predict(self, spec: ModalitySpec, x: Array) -> Array | distributions.TanhNormal:
        out = self.heads[spec.name](x)
        if spec.head == "categorical":
            return out  # [..., T, P, D]
        return jax.tree.map(lambda leaf: leaf[..., 0, :], out)  # P = 1
