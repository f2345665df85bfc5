"""Steps 3 to 5 of a plan: values of steps, utilities of candidates, the choice among them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import returns

# A spread below this fraction of the utilities' magnitude is rounding noise.
_RESOLUTION = 1e-6


def return_values(return_tokens: Array, t: Array | int, max_episode_steps: int) -> Array:
    """Turn the horizon's return tokens into returns to go, the values of M3PC-M.

    Args:
        return_tokens: average return to go of each step, [..., h], the first at step `t`.
        t: the present step of the episode.
        max_episode_steps: the environment's time limit, H_max.

    Returns:
        [..., h]; zero from the time limit on.
    """
    left = returns.steps_left(t + jnp.arange(return_tokens.shape[-1]), max_episode_steps)
    return return_tokens * jnp.maximum(left, 0)


def utilities(
    rewards: Array, values: Array, length: Array | int, discount: float, lambda_: float
) -> Array:
    """Compute the utility of every candidate (M3PC equation 3): [N, h] and [N, h] -> [N].

    Args:
        rewards: of the steps.
        values: of the steps.
        length: steps of the horizon that count, [] in 1..h.
        discount: gamma.
        lambda_: weight of longer returns.
    """

    def one(rewards: Array, values: Array) -> Array:
        return returns.lambda_utility(rewards, values, discount, lambda_, length)

    return jax.vmap(one)(rewards, values)


def expect_falls(rewards: Array, values: Array, ends: Array, penalty: float) -> tuple[Array, Array]:
    """Count rewards and values as far as the episode is expected to get there.

    A step n is reached with probability c_n = prod_{k=1..n} (1 - ends_k). Its reward becomes
    c_n (reward_n - penalty ends_{n+1}), its value c_n value_n. The present state ends nothing.

    Args:
        rewards, values: of the steps, [N, h].
        ends: how probably the state of each step ends the episode, [N, h].
        penalty: what a fall costs, in units of the return.

    Returns:
        rewards and values, [N, h]; the last reward, which no utility counts, is without penalty.
    """
    ends = ends.at[:, 0].set(0.0)
    reached = jnp.cumprod(1.0 - ends, axis=1)
    following = jnp.pad(ends[:, 1:], [(0, 0), (0, 1)])
    return reached * (rewards - penalty * following), reached * values


def length_to_limit(length: Array, t: Array, max_episode_steps: int) -> Array:
    """Count the steps of the horizon before the time limit, [], and at least the present one."""
    return jnp.clip(max_episode_steps - t, 1, length)


def released_return_values(return_tokens: Array, t: Array | int, max_episode_steps: int) -> Array:
    """Value steps like the released planner: tokens times H_max, whatever the step (F10)."""
    return return_tokens * max_episode_steps


def released_utilities(
    rewards: Array, values: Array, length: Array | int, discount: float, lambda_: float
) -> Array:
    """Score candidates like the released planner: `utilities` times one more discount (F7)."""
    return discount * utilities(rewards, values, length, discount, lambda_)


def standardise(utilities: Array) -> Array:
    """Express utilities in standard deviations over the candidates: [N] -> [N].

    Equal utilities become zeros.
    """
    spread, size = utilities.std(), jnp.abs(utilities).max()
    centred = utilities - utilities.mean()
    return jnp.where(spread > _RESOLUTION * size, centred / jnp.where(spread > 0, spread, 1.0), 0.0)


def weights(utilities: Array, xi: float) -> Array:
    """Softmax of xi times the utilities, [N] -> [N] (M3PC equation 4)."""
    # Subtracting the maximum first keeps differences that rounding of xi * utilities would lose.
    return jax.nn.softmax(xi * (utilities - utilities.max()))


def expectation(weights: Array, actions: Array) -> Array:
    """Average the candidates' actions, [N] and [N, A] -> [A]: the choice without exploration."""
    return weights @ actions


def draw(key: Array, weights: Array, actions: Array) -> Array:
    """Draw one candidate's action, [N] and [N, A] -> [A]: the choice that explores."""
    return actions[jax.random.categorical(key, jnp.log(weights))]
