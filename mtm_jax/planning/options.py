"""The settings of a plan as functions: every name in a `PlanConfig` is looked up here, once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array

from mtm_jax import returns
from mtm_jax.config import PlanConfig
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import forward, scoring, worlds

# (critic, states [..., S] raw, actions [..., A] in [-1, 1]) -> [...], in units of the return.
CriticFn: TypeAlias = Callable[[object, Array, Array], Array]


# (critic, states [..., S] raw) -> probabilities that these end the episode, [...].
EndFn: TypeAlias = Callable[[object, Array], Array]


class Steps(NamedTuple):
    """Steps 3 to 5 of `forward.plan`, and what they are computed over."""

    length_fn: Callable[[context_lib.Context, int], Array]  # (context, h) -> steps that count, []
    # `forward.ValueFn` after the critic, its first argument.
    value_fn: Callable[[object, worlds.Rollout, Array, Array], Array]
    score_fn: forward.ScoreFn
    weigh_fn: forward.WeighFn
    choose_fn: forward.ChooseFn
    # `forward.FallFn` after the critic; None where falls are ignored.
    fall_fn: Callable[[object, worlds.Rollout, Array], tuple[Array, Array]] | None = None


class Convention(NamedTuple):
    """What the paper and the released planner compute differently."""

    return_values: Callable[[Array, Array, int], Array]  # like `scoring.return_values`
    utilities: Callable[..., Array]  # like `scoring.utilities`
    length: Callable[[Array, Array, int], Array]  # like `scoring.length_to_limit`


# By `PlanConfig.convention`. The released planner scores beyond the time limit.
CONVENTIONS = {
    "equation3": Convention(scoring.return_values, scoring.utilities, scoring.length_to_limit),
    "released": Convention(
        scoring.released_return_values,
        scoring.released_utilities,
        lambda length, t, max_episode_steps: length,
    ),
}

# By `PlanConfig.xi_unit`: utilities in the unit that xi multiplies, [N] -> [N].
UNITS = {"std": scoring.standardise, "raw": lambda utilities: utilities}

# By whether a plan explores.
CHOICES: dict[bool, forward.ChooseFn] = {
    False: lambda key, weights, actions: scoring.expectation(weights, actions),
    True: scoring.draw,
}


def make_steps(
    config: PlanConfig,
    max_episode_steps: int,
    critic_fn: CriticFn | None,
    explore: bool,
    end_fn: EndFn | None = None,
) -> Steps:
    """Look up the functions of a plan's settings.

    Args:
        config: of the plan.
        max_episode_steps: the environment's time limit, H_max.
        critic_fn: values steps under guidance "critic", and states under "value".
        explore: draw actions instead of taking expectations.
        end_fn: says how probably states end the episode, where `config.falls` are expected.
    """
    convention, in_unit = CONVENTIONS[config.convention], UNITS[config.xi_unit]

    def length(context: context_lib.Context, horizon: int) -> Array:
        in_window = worlds.horizon_length(context, config, horizon)
        return convention.length(in_window, context.t, max_episode_steps)

    def return_values(critic: object, rollout: worlds.Rollout, actions: Array, t: Array) -> Array:
        return convention.return_values(rollout.return_tokens, t, max_episode_steps)

    def critic_values(critic: object, rollout: worlds.Rollout, actions: Array, t: Array) -> Array:
        return critic_fn(critic, rollout.states, actions)

    def state_values(critic: object, rollout: worlds.Rollout, actions: Array, t: Array) -> Array:
        values = critic_fn(critic, rollout.states, actions)
        steps = t + jnp.arange(values.shape[-1])
        return jnp.where(returns.steps_left(steps, max_episode_steps) > 0, values, 0.0)

    def no_values(critic: object, rollout: worlds.Rollout, actions: Array, t: Array) -> Array:
        return jnp.zeros(rollout.rewards.shape)

    def expect_falls(critic: object, rollout: worlds.Rollout, values: Array) -> tuple[Array, Array]:
        ends = end_fn(critic, rollout.states)
        return scoring.expect_falls(rollout.rewards, values, ends, config.fall_penalty)

    def weigh(utilities: Array) -> Array:
        return scoring.weights(in_unit(utilities), config.xi)

    values = {
        "none": no_values,
        "returns": return_values,
        "value": state_values,
        "critic": critic_values,
    }
    score = functools.partial(
        convention.utilities, discount=config.discount, lambda_=config.lambda_
    )
    steps = Steps(length, values[config.guidance], score, weigh, CHOICES[explore])
    return steps._replace(fall_fn=expect_falls) if config.expects_falls else steps
