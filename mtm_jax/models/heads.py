"""Heads of the masked trajectory model: what a decoded token predicts."""

from __future__ import annotations

from typing import TypeAlias

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax import distributions
from mtm_jax.models import networks
from mtm_jax.types import ModalitySpec

# Modality -> prediction: [..., T, D] (continuous), [..., T, P, D] logits (categorical)
# or a TanhNormal with fields [..., T, A].
Outputs: TypeAlias = "dict[str, Array | distributions.TanhNormal]"


class MLPHead(nn.Module):
    """LayerNorm, Linear, GELU, Linear: [..., C] -> [..., features]."""

    features: int
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = networks.layer_norm("norm")(x)
        x = networks.dense(self.width, "hidden", dtype=self.dtype)(x)
        # The last matmul stays in float32: losses and plans depend on its digits.
        return networks.dense(self.features, "out")(networks.gelu(x).astype(jnp.float32))


class TanhNormalHead(nn.Module):
    """One linear layer each for the location and the squashed log standard deviation."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> distributions.TanhNormal:
        orthogonal = nn.initializers.orthogonal()
        loc = networks.dense(self.features, "loc", orthogonal)(x)
        raw = networks.dense(self.features, "log_std", orthogonal)(x)
        return distributions.TanhNormal(loc, distributions.squash_log_std(raw))


def make_head(spec: ModalitySpec, width: int, dtype: jnp.dtype) -> nn.Module:
    """Make the head of one modality: [..., C] -> predictions, see `Outputs`."""
    name = f"head_{spec.name}"
    if spec.head == "tanh_normal":
        return TanhNormalHead(spec.features, name=name)
    return MLPHead(spec.features, width, dtype, name=name)
