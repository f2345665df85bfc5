"""Value networks and actor heads of the actor-critic programs."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax import distributions, networks


class Q(nn.Module):
    """An ensemble of state-action values: obs [..., S], action [..., A] -> [members, ...]."""

    hidden: Sequence[int] = (256, 256)
    members: int = 2

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        x = jnp.concatenate([obs, action], axis=-1)
        # Separate matrices: a batched product over two members is slower on the CPU.
        values = [
            networks.MLP((*self.hidden, 1), name=f"member_{m}")(x) for m in range(self.members)
        ]
        return jnp.stack([v[..., 0] for v in values])


class TanhNormalActor(nn.Module):
    """A state-dependent TanhNormal policy: obs [..., S] -> TanhNormal [..., A]."""

    action_dim: int
    hidden: Sequence[int] = (256, 256)

    @nn.compact
    def __call__(self, obs: Array) -> distributions.TanhNormal:
        out = networks.MLP((*self.hidden, 2 * self.action_dim), name="mlp")(obs)
        loc, raw_log_std = jnp.split(out, 2, axis=-1)
        return distributions.TanhNormal(loc, distributions.squash_log_std(raw_log_std))
