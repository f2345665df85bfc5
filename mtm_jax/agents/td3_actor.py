"""Acting by TD3: several trained actors side by side, without any memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax.training import td3

Choose = Callable[[dict, dict, Array], Array]


class Policies(NamedTuple):
    """M actors, each of which acts in E environments; see `rollout.Actor`.

    Attributes:
        choose: of all of them, from `compile_actor`.
        params: `TD3State.actor` with a leading axis M.
        frozen: parameters of frozen features, `td3.Data.features`.
    """

    choose: Choose
    params: dict
    frozen: dict

    def start(self, obs: np.ndarray) -> np.ndarray:
        """Begin episodes."""
        return np.float32(obs)

    def decide(self, memory: np.ndarray) -> np.ndarray:
        """Choose the actions of all environments, [M E, A] in [-1, 1]."""
        members = jax.tree.leaves(self.params)[0].shape[0]
        obs = jnp.asarray(memory).reshape(members, -1, memory.shape[-1])
        return np.asarray(self.choose(self.params, self.frozen, obs)).reshape(len(memory), -1)

    def observe(
        self, memory: np.ndarray, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> np.ndarray:
        """Go on from what followed."""
        return np.float32(obs)


def compile_actor(algorithm: td3.TD3) -> Choose:
    """Compile (params [M, ...], frozen, obs [M, E, S] raw) -> actions [M, E, A], without noise."""
    return jax.jit(jax.vmap(algorithm.act, (0, None, 0)))
