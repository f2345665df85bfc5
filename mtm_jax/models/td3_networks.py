"""The networks of TD3: a bounded first layer keeps values of unseen actions from running away."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax.models import networks

# As in the reference of TD3 on exploratory data, without a gain.
orthogonal = nn.initializers.orthogonal()


class TrunkMLP(nn.Module):
    """Dense layers: [..., D] -> [..., widths[-1]].

    The first is followed by LayerNorm and tanh if it is `bounded`, otherwise and later by ReLU.
    """

    widths: Sequence[int]
    bounded: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            x = networks.dense(width, f"layer_{i}", orthogonal)(x)
            if i == 0 and self.bounded:
                x = jnp.tanh(networks.layer_norm("norm_0")(x))
            elif i + 1 < len(self.widths):
                x = nn.relu(x)
        return x


class Values(nn.Module):
    """An ensemble of values: features of states and actions [..., G] -> [members, ...]."""

    hidden: Sequence[int] = (1024, 1024)
    bounded: bool = True
    members: int = 2

    @nn.compact
    def __call__(self, features: Array) -> Array:
        # Separate matrices: one batched matmul over the members is slower on the CPU.
        values = [
            TrunkMLP((*self.hidden, 1), self.bounded, name=f"member_{m}")(features)
            for m in range(self.members)
        ]
        return jnp.stack([v[..., 0] for v in values])


class TanhActor(nn.Module):
    """A deterministic policy: features of states [..., F] -> actions [..., A] in (-1, 1)."""

    action_dim: int
    hidden: Sequence[int] = (1024, 1024)
    bounded: bool = True

    @nn.compact
    def __call__(self, features: Array) -> Array:
        widths = (*self.hidden, self.action_dim)
        return jnp.tanh(TrunkMLP(widths, self.bounded, name="mlp")(features))
