"""Forward M3PC: act by planning inside a masked trajectory model (M3PC algorithm 1).

At every step of an episode, given its recent history and a return to ask for:

1. Propose N candidates, sequences of h actions, from the return-conditioned policy (lines 5, 7).
2. Roll all of them out in the model: states, rewards and returns to go (lines 8, 9).
3. Value every step: V_n is its return to go (M3PC-M), or a critic's Q (M3PC-Q) or V.
4. Score every candidate by its utility U, the lambda-average of its n-step returns (equation 3).
5. Choose a_t: softmax(xi U) weighs the candidates (equation 4); the mean, or to explore a draw.

`plan` does this for one environment and knows no settings: it takes the steps as functions.
`compiled.make_planner` makes these from a `PlanConfig` and compiles plans of many environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import distributions
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import worlds

# (rollout, actions [N, h, A], present step of the episode []) -> value of every step, [N, h].
ValueFn: TypeAlias = Callable[[worlds.Rollout, Array, Array], Array]
# (rewards [N, h], values [N, h], length []) -> utilities [N].
ScoreFn: TypeAlias = Callable[[Array, Array, Array], Array]
# (rollout, values [N, h]) -> rewards and values that are expected where an episode may end, [N, h].
FallFn: TypeAlias = Callable[[worlds.Rollout, Array], tuple[Array, Array]]
WeighFn: TypeAlias = Callable[[Array], Array]  # utilities [N] -> weights [N], which sum to one
ChooseFn: TypeAlias = Callable[[Array, Array, Array], Array]  # (key, weights, [N, A]) -> [A]


class Plan(NamedTuple):
    """A decision with everything that led to it, for N candidates over h steps."""

    action: Array  # [A] in [-1, 1], what to do now
    candidates: Array  # [N, h, A] in [-1, 1]
    rollout: worlds.Rollout  # what every candidate leads to
    values: Array  # [N, h], in units of the return
    utilities: Array  # [N], in units of the return
    weights: Array  # [N], sum to one
    length: Array  # [] int, the first steps of the horizon, which count towards the utility


def plan(
    key: Array,
    context: context_lib.Context,
    target: Array,
    *,
    world: worlds.World,
    value_fn: ValueFn,
    score_fn: ScoreFn,
    weigh_fn: WeighFn,
    choose_fn: ChooseFn,
    num_candidates: int,
    length: Array,
    spread: float = 1.0,
    fall_fn: FallFn | None = None,
) -> Plan:
    """Choose an action for one environment (M3PC algorithm 1).

    Args:
        key: of the candidates, and of the draw that explores.
        context: the window of recent history.
        target: return token to ask the policy for, [].
        world: proposes actions and predicts what they lead to.
        value_fn, score_fn, weigh_fn, choose_fn: steps 3 to 5.
        num_candidates: N.
        length: steps of the horizon that count towards the utility, [] int in 1..h.
        spread: multiplies the standard deviations of the policy.
        fall_fn: part of step 4; None: the episode does not end before the time limit.
    """
    candidate_key, choice_key = jax.random.split(key)
    policy = world.policy(context, target)
    candidates = propose(candidate_key, policy, num_candidates, spread)  # 1
    rollout = world.rollout(context, candidates)  # 2
    values = value_fn(rollout, candidates, context.t)  # 3
    rewards = rollout.rewards
    if fall_fn is not None:
        rewards, values = fall_fn(rollout, values)
    utilities = score_fn(rewards, values, length)  # 4
    weights = weigh_fn(utilities)  # 5
    action = choose_fn(choice_key, weights, candidates[:, 0])
    return Plan(action, candidates, rollout, values, utilities, weights, length)


def propose(
    key: Array, policy: distributions.TanhNormal, num_candidates: int, spread: float
) -> Array:
    """Draw action sequences, independent over steps and dimensions: [N, h, A] (F6)."""
    wider = policy._replace(log_std=policy.log_std + jnp.log(spread))
    return distributions.sample(key, wider, (num_candidates,))
