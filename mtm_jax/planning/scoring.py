"""Scoring of candidates: the lambda utility of M3PC equation 3, and the choice among them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import returns

# Utilities that differ by less than this share of their size are one utility: rounding noise.
_RESOLUTION = 1e-6


def utility(
    rewards: Array, values: Array, length: Array | int, discount: float, lambda_: float
) -> Array:
    """Average the n-step returns of one candidate over its horizon (M3PC equation 3).

    `returns.lambda_utility` of the first `length` steps, for a length that may be traced.

    Args:
        rewards: expected of each step, [h]; from `length - 1` on they have no part.
        values: of each step, [h]; from `length` on they have no part.
        length: steps of the horizon, 1 <= length <= h.
        discount: gamma.
        lambda_: weight of longer returns.

    Returns:
        [], in the units of the rewards.
    """
    steps = jnp.arange(rewards.shape[0])

    def backward(later: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
        n, reward, value = step
        mixed = (1.0 - lambda_) * value + lambda_ * (reward + discount * later)
        return jnp.where(n >= length - 1, value, mixed), None

    return jax.lax.scan(backward, jnp.zeros(()), (steps, rewards, values), reverse=True)[0]


def return_values(tokens: Array, t: Array | int, max_episode_steps: int) -> Array:
    """Turn the horizon's return tokens into returns-to-go, the values of M3PC-M: [h] -> [h].

    Args:
        tokens: average return to go of each step, the first at episode step `t`.
        t: the present step of the episode.
        max_episode_steps: the environment's limit, H_max.
    """
    left = returns.steps_left(t + jnp.arange(tokens.shape[0]), max_episode_steps)
    return tokens * jnp.maximum(left, 0)


def released_return_values(tokens: Array, max_episode_steps: int) -> Array:
    """Values as the released planner has them: tokens times H_max, whatever the step (F10)."""
    return tokens * max_episode_steps


def standardise(utilities: Array) -> Array:
    """Express utilities in standard deviations over the candidates: [N] -> [N].

    Utilities that are all the same become zeros.
    """
    spread, size = utilities.std(), jnp.abs(utilities).max()
    centred = utilities - utilities.mean()
    return jnp.where(spread > _RESOLUTION * size, centred / jnp.where(spread > 0, spread, 1.0), 0.0)


def weights(utilities: Array, xi: float) -> Array:
    """Softmax of xi times the utilities, [N] (M3PC algorithm 1, line 9)."""
    # The largest is taken off first: the product with it would round what matters away.
    return jax.nn.softmax(xi * (utilities - utilities.max()))


def expectation(weights: Array, actions: Array) -> Array:
    """Average the candidates' actions, [N] and [N, A] -> [A]: the choice without exploration."""
    return weights @ actions


def draw(key: Array, weights: Array, actions: Array) -> Array:
    """Draw one candidate's action, [N] and [N, A] -> [A]: the choice that explores."""
    return actions[jax.random.categorical(key, jnp.log(weights))]
