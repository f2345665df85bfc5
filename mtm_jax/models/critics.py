"""Value networks and actor heads of the actor-critic programs.

Networks do not normalise their inputs; the programs do, where they want to.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mtm_jax import distributions
from mtm_jax.models import networks


class Q(nn.Module):
    """An ensemble of state-action values: obs [..., S], action [..., A] -> [members, ...]."""

    hidden: Sequence[int] = (256, 256)
    members: int = 2
    normalised: bool = False  # by a LayerNorm before every activation

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        x = jnp.concatenate([obs, action], axis=-1)
        # Separate matrices: one batched matmul over the members is slower on the CPU.
        values = [
            networks.MLP((*self.hidden, 1), normalised=self.normalised, name=f"member_{m}")(x)
            for m in range(self.members)
        ]
        return jnp.stack([v[..., 0] for v in values])


class V(nn.Module):
    """A state value, or another number of a state: obs [..., S] -> [...]."""

    hidden: Sequence[int] = (256, 256)
    normalised: bool = False  # by a LayerNorm before every activation

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        mlp = networks.MLP((*self.hidden, 1), normalised=self.normalised, name="mlp")
        return mlp(obs)[..., 0]


class NormalActor(nn.Module):
    """A Normal policy with a bounded mean and a state-independent standard deviation.

    obs [..., S] -> mean [..., A] in (-1, 1), standard deviation [A].
    """

    action_dim: int
    hidden: Sequence[int] = (256, 256)

    @nn.compact
    def __call__(self, obs: Array) -> tuple[Array, Array]:
        mean = jnp.tanh(networks.MLP((*self.hidden, self.action_dim), name="mlp")(obs))
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return mean, jnp.exp(jnp.clip(log_std, -20.0, 2.0))


class TanhNormalActor(nn.Module):
    """A state-dependent TanhNormal policy: obs [..., S] -> TanhNormal [..., A]."""

    action_dim: int
    hidden: Sequence[int] = (256, 256)

    @nn.compact
    def __call__(self, obs: Array) -> distributions.TanhNormal:
        out = networks.MLP((*self.hidden, 2 * self.action_dim), name="mlp")(obs)
        loc, raw_log_std = jnp.split(out, 2, axis=-1)
        return distributions.TanhNormal(loc, distributions.squash_log_std(raw_log_std))
