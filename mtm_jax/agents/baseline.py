"""Acting by the MLP baselines: several networks side by side, without any memory."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax.config import MLPConfig
from mtm_jax.errors import UserError
from mtm_jax.training import mlp

POLICIES = ("bc", "rcbc")  # roles that act


class Baselines(NamedTuple):
    """M networks, each of which acts in E environments; see `rollout.Actor`.

    Attributes:
        config: of all of them.
        stats: modality -> statistics of the training data.
        params: with a leading axis M.
        target: return token to ask for; "bc" ignores it.
    """

    config: MLPConfig
    stats: mlp.Stats
    params: dict
    target: float = 0.0

    def start(self, obs: np.ndarray) -> np.ndarray:
        """Begin episodes.

        Raises:
            UserError: the networks are no policies.
        """
        if self.config.role not in POLICIES:
            raise UserError(
                f"an MLP of the role {self.config.role!r} cannot act; choose one of "
                f"{', '.join(POLICIES)}"
            )
        return np.float32(obs)

    def decide(self, memory: np.ndarray) -> np.ndarray:
        """Choose the actions of all environments, [M E, A] in [-1, 1]."""
        members = jax.tree.leaves(self.params)[0].shape[0]
        obs = jnp.asarray(memory).reshape(members, -1, 1, memory.shape[-1])
        actions = _choose(self.config, self.stats, self.params, obs, jnp.float32(self.target))
        return np.asarray(actions).reshape(len(memory), -1)

    def observe(
        self, memory: np.ndarray, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> np.ndarray:
        """Go on from what followed."""
        return np.float32(obs)


@functools.partial(jax.jit, static_argnames="config")
def _choose(config: MLPConfig, stats: mlp.Stats, params: dict, obs: Array, target: Array) -> Array:
    """Choose actions, [M, E, A], for observations [M, E, 1, S]."""
    returns = jnp.broadcast_to(target, (*obs.shape[:-1], 1))
    predict = functools.partial(mlp.predict, config, stats)
    return jax.vmap(predict)(params, {"states": obs, "returns": returns})
