"""Returns: of trajectories, as tokens, and of candidates (M3PC equation 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def returns_to_go(rewards: Array) -> Array:
    """Sum the rewards from each step on, inclusive and undiscounted: [T] -> [T]."""
    return jnp.cumsum(rewards[::-1])[::-1]


def average_return_to_go(rewards: Array, max_episode_steps: int) -> Array:
    """Compute return tokens g_t, the return to go averaged over the steps left to the time limit.

    g_t = (sum_{k >= t} r_k) / (H_max - t). It includes r_t, so it is a value at t.

    Args:
        rewards: one episode's rewards from its first step on, [T].
        max_episode_steps: H_max, at least T.
    """
    return returns_to_go(rewards) / steps_left(jnp.arange(rewards.shape[0]), max_episode_steps)


def steps_left(t: Array, max_episode_steps: int) -> Array:
    """Return H_max - t, the factor that turns a return token into a return to go."""
    return max_episode_steps - t


def lambda_utility(
    rewards: Array,
    values: Array,
    discount: float | Array,
    lambda_: float | Array,
    length: Array | int | None = None,
) -> Array:
    """Average the n-step returns of one candidate (M3PC equation 3).

    U = (1 - lambda) sum_{n=0}^{h-2} lambda^n G_n + lambda^{h-1} G_{h-1}, where
    G_n = sum_{k<n} discount^k rewards_k + discount^n values_n.

    Args:
        rewards: of the horizon's steps, [h]; the last that counts has no influence.
        values: of the horizon's steps, [h].
        discount: gamma.
        lambda_: weight of longer returns; 0 gives values[0], 1 gives G_{h-1}.
        length: steps that count, in place of h in the equation; may be traced, 1 <= length <= h.

    Returns:
        [], in the units of the rewards.
    """
    steps = jnp.arange(rewards.shape[0])
    last = (rewards.shape[0] if length is None else length) - 1

    def backward(utility_tp1: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
        n, reward_t, value_t = step
        bootstrap = reward_t + discount * utility_tp1
        mixed = (1.0 - lambda_) * value_t + lambda_ * bootstrap
        return jnp.where(n >= last, value_t, mixed), None

    return jax.lax.scan(backward, jnp.zeros(()), (steps, rewards, values), reverse=True)[0]
