"""Forward M3PC (algorithm 1): propose, roll out, score, choose. No state is kept anywhere.

Plans are made for one environment and vmapped; `make_planner` compiles them into one call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax import tokens
from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.models import queries
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import proposals, scoring

Stats = Mapping[str, tokens.Stats]

# (states [..., S] raw, actions [..., A] in [-1, 1]) -> values [...], in units of the return.
ValueFn = Callable[[Array, Array], Array]


class Plan(NamedTuple):
    """A decision, with everything that led to it."""

    action: Array  # [A] in [-1, 1], what to do now
    candidates: Array  # [N, h, A]
    rollout: proposals.Rollout
    values: Array  # [N, h], of each step
    utilities: Array  # [N]
    weights: Array  # [N]
    length: Array  # [], steps of the horizon that count


def plan(
    world: proposals.World,
    value: ValueFn | None,
    config: PlanConfig,
    context: context_lib.Context,
    target: Array,
    max_episode_steps: int,
    key: Array,
    length: Array | int | None = None,
    explore: bool = False,
) -> Plan:
    """Choose an action for one environment.

    Args:
        world: proposes actions and predicts what they lead to.
        value: values steps under guidance "critic"; not used under "returns".
        config: of the plan.
        context: the window of recent history.
        target: return token to ask the policy for, [].
        max_episode_steps: the environment's limit, H_max.
        key: of the candidates, and of the draw if there is one.
        length: steps of the horizon that count; all of them by default.
        explore: draw an action instead of taking the expectation.
    """
    candidate_key, choice_key = jax.random.split(key)
    actions = proposals.draw(candidate_key, world.policy(context, target), config)
    rollout = world.rollout(context, actions)
    length = jnp.asarray(actions.shape[1] if length is None else length)
    values = step_values(rollout, actions, value, config, context.t, max_episode_steps)
    utilities = score(rollout.rewards, values, length, config)
    weights = scoring.weights(in_unit(utilities, config), config.xi)
    first = actions[:, 0]
    chosen = (
        scoring.draw(choice_key, weights, first) if explore else scoring.expectation(weights, first)
    )
    return Plan(chosen, actions, rollout, values, utilities, weights, length)


def step_values(
    rollout: proposals.Rollout,
    actions: Array,
    value: ValueFn | None,
    config: PlanConfig,
    t: Array,
    max_episode_steps: int,
) -> Array:
    """Value every step of every candidate, [N, h]."""
    if config.guidance == "critic":
        return value(rollout.states, actions)
    if config.convention == "released":
        return scoring.released_return_values(rollout.return_tokens, max_episode_steps)
    to_go = functools.partial(scoring.return_values, t=t, max_episode_steps=max_episode_steps)
    return jax.vmap(to_go)(rollout.return_tokens)


def score(rewards: Array, values: Array, length: Array, config: PlanConfig) -> Array:
    """Compute the utility of every candidate, [N, h] and [N, h] -> [N]."""

    def one(rewards: Array, values: Array) -> Array:
        return scoring.utility(rewards, values, length, config.discount, config.lambda_)

    factor = config.discount if config.convention == "released" else 1.0
    return factor * jax.vmap(one)(rewards, values)


def in_unit(utilities: Array, config: PlanConfig) -> Array:
    """Express utilities in the unit that xi is meant in."""
    return scoring.standardise(utilities) if config.xi_unit == "std" else utilities


class Weights(NamedTuple):
    """What a planner computes with, all of it traced."""

    params: dict
    stats: Stats
    critic: object = None  # whatever the value function takes first
    world: tuple[dict, Stats] | None = None  # of another model, which answers instead


class Planner(NamedTuple):
    """Compiled planning for E environments at once; both take the same arguments.

    act(weights, contexts, target, key) -> actions [E, A] and sound [E], False where a utility is
        not finite.
    explain(..., horizon=h) -> Plan with a leading axis E on every field. The horizon is
        config.horizon once the window is full; before, history + horizon, of which `length` count.
    """

    act: Callable[..., tuple[Array, Array]]
    explain: Callable[..., Plan]


def make_planner(
    model: Model,
    config: PlanConfig,
    max_episode_steps: int,
    value: Callable[[object, Array, Array], Array] | None = None,
    explore: bool = False,
    world_model: Model | None = None,
) -> Planner:
    """Compile decisions of a model; the step of the episode never compiles anything again.

    Args:
        model: the pretrained model.
        config: of the plan.
        max_episode_steps: the environment's limit, H_max.
        value: (critic, states [..., S] raw, actions [..., A]) -> [...] under guidance "critic".
        explore: draw actions instead of taking expectations.
        world_model: answers what candidates lead to; by default the model that proposes them.

    Raises:
        UserError: the models cannot carry out such a plan.
    """
    check(model, config, value)
    if world_model is not None:
        check(world_model, config, value)

    def decide(
        horizon: int,
        weights: Weights,
        contexts: context_lib.Context,
        target: Array,
        key: Array,
        scored_only: bool = False,
    ) -> Plan:
        world = make_world(model, world_model, weights, config, horizon, scored_only)
        bound = None if value is None else functools.partial(value, weights.critic)

        def one(context: context_lib.Context, key: Array) -> Plan:
            length = proposals.horizon_length(context, config, horizon)
            length = proposals.scored_length(length, context.t, config, max_episode_steps)
            return plan(
                *(world, bound, config, context, target, max_episode_steps, key, length, explore)
            )

        keys = jax.random.split(key, contexts.slot.shape[0])
        return over_environments(one, config.candidates, contexts, keys)

    def act(
        weights: Weights, contexts: context_lib.Context, target: Array, key: Array
    ) -> tuple[Array, Array]:
        def chosen(horizon: int) -> tuple[Array, Array]:
            plans = decide(horizon, weights, contexts, target, key, scored_only=True)
            return plans.action, jnp.isfinite(plans.utilities).all(-1)

        # One branch runs: the window is full but for the first steps of an episode.
        full = jnp.all(contexts.slot == config.history)
        whole = config.history + config.horizon
        return jax.lax.cond(full, lambda: chosen(config.horizon), lambda: chosen(whole))

    def explain(
        weights: Weights,
        contexts: context_lib.Context,
        target: Array,
        key: Array,
        horizon: int | None = None,
    ) -> Plan:
        return decide(horizon or config.horizon, weights, contexts, target, key)

    return Planner(jax.jit(act), jax.jit(explain, static_argnames="horizon"))


def over_environments(
    one: Callable[[context_lib.Context, Array], Plan],
    candidates: int,
    contexts: context_lib.Context,
    keys: Array,
) -> Plan:
    """Plan for E environments: at once, but on a processor no more than fill a chunk together."""
    environments = len(keys)
    most = max(1, queries.CHUNK // candidates)
    group = next(n for n in range(min(most, environments), 0, -1) if environments % n == 0)

    def together(contexts: context_lib.Context, keys: Array) -> Plan:
        return jax.vmap(one)(contexts, keys)

    def in_groups(contexts: context_lib.Context, keys: Array) -> Plan:
        return jax.lax.map(lambda x: one(*x), (contexts, keys), batch_size=group)

    if group == environments:
        return together(contexts, keys)
    return jax.lax.platform_dependent(contexts, keys, cpu=in_groups, default=together)


def make_world(
    model: Model,
    world_model: Model | None,
    weights: Weights,
    config: PlanConfig,
    horizon: int,
    scored_only: bool,
) -> proposals.World:
    """Join what proposes and what answers; both are the same model unless another is given."""
    make = proposals.plain_world
    if config.pruned:
        make = functools.partial(proposals.pruned_world, scored_only=scored_only)
    world = make(model, weights.params, weights.stats, config, horizon)
    if world_model is None:
        return world
    return world._replace(rollout=make(world_model, *weights.world, config, horizon).rollout)


def check(model: Model, config: PlanConfig, value: object | None) -> None:
    """Refuse a plan that the model cannot carry out.

    Raises:
        UserError: it says what is missing, or what does not fit into the window.
    """
    heads = {m.name: m.head for m in model.config.modalities}
    missing = [m for m in ("returns", "rewards") if m not in heads]
    if missing:
        raise UserError(
            f"this model has no {' and no '.join(missing)}, so it cannot score plans; "
            "pretrain one with variant=m3pc"
        )
    if heads.get("actions") != "tanh_normal":
        raise UserError(
            f"this model predicts single actions (head {heads.get('actions')!r}), so there is "
            "nothing to draw candidates from; pretrain one with variant=m3pc"
        )
    window, needed = model.config.window, config.history + config.horizon
    if needed > window:
        raise UserError(
            f"a history of {config.history} and a horizon of {config.horizon} steps need a window "
            f"of {needed}; this model has {window}"
        )
    if config.guidance == "critic" and value is None:
        raise UserError(
            "guidance 'critic' needs a critic and this run has none; train one with "
            "`python -m experiments.critic --config.run=RUN`"
        )
    if config.discount is None:
        raise UserError(
            "a plan guided by a critic needs the discount that the critic was trained with; give "
            "PlanConfig(discount=...)"
        )
