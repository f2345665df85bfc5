"""Plans of many environments in one compiled call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.models import pruned
from mtm_jax.models.trajectory_model import Model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import forward, options, pruned_world, worlds


class Weights(NamedTuple):
    """The parameters that a planner computes with, all of them traced."""

    params: dict
    stats: worlds.Stats
    critic: object = None  # first argument of the critic function
    world: tuple[dict, worlds.Stats] | None = None  # of another model, which predicts the rollouts


class Planner(NamedTuple):
    """Compiled planning for E environments; both functions take the same arguments.

    Either compiles at most two programs, one for the first steps of an episode.

    act(weights, contexts, target, key) -> actions [E, A] and sound [E], False where a utility is
        not finite.
    explain(..., horizon=h) -> Plan with a leading axis E on every field. The horizon is
        config.horizon once the window is full; before that, history + horizon, of which the first
        `length` steps count.
    """

    act: Callable[..., tuple[Array, Array]]
    explain: Callable[..., forward.Plan]


def make_planner(
    model: Model,
    config: PlanConfig,
    max_episode_steps: int,
    critic_fn: options.CriticFn | None = None,
    explore: bool = False,
    world_model: Model | None = None,
    end_fn: options.EndFn | None = None,
) -> Planner:
    """Compile the decisions of a model; see `Planner`.

    Args:
        model: the pretrained model.
        config: of the plan.
        max_episode_steps: the environment's time limit, H_max.
        critic_fn: values steps under guidance "critic", and states under "value".
        explore: draw actions instead of taking expectations.
        world_model: predicts what candidates lead to; by default the model that proposes them.
        end_fn: says how probably states end the episode, where falls are expected.

    Raises:
        UserError: the models cannot carry out such a plan.
    """
    check(model, config, critic_fn)
    if world_model is not None:
        check(world_model, config, critic_fn)
    steps = options.make_steps(config, max_episode_steps, critic_fn, explore, end_fn)
    setup = _Setup(model, world_model, config, steps)
    return Planner(_make_act(setup), _make_explain(setup))


class _Setup(NamedTuple):
    """What is fixed when a planner is made."""

    model: Model
    world_model: Model | None
    config: PlanConfig
    steps: options.Steps


def _make_act(setup: _Setup) -> Callable[..., tuple[Array, Array]]:
    config = setup.config
    longest = config.history + config.horizon

    @functools.partial(jax.jit, static_argnums=0)
    def choose(horizon: int, *arguments) -> tuple[Array, Array]:
        plans = _decide(setup, horizon, *arguments, scored_only=True)
        return plans.action, jnp.isfinite(plans.utilities).all(-1)

    def act(
        weights: Weights, contexts: context_lib.Context, target: Array, key: Array
    ) -> tuple[Array, Array]:
        arguments = weights, contexts, target, key
        if isinstance(contexts.slot, jax.core.Tracer):  # within another program
            full = jnp.all(contexts.slot == config.history)
            programs = (functools.partial(choose, h) for h in (config.horizon, longest))
            return jax.lax.cond(full, *programs, *arguments)
        # The window is full except in the first steps of an episode. Whoever never sees these, or
        # nothing else, does not wait for the other program to compile.
        full = np.all(np.asarray(contexts.slot) == config.history)
        return choose(config.horizon if full else longest, *arguments)

    return act


def _make_explain(setup: _Setup) -> Callable[..., forward.Plan]:
    @functools.partial(jax.jit, static_argnames="horizon")
    def explain(
        weights: Weights,
        contexts: context_lib.Context,
        target: Array,
        key: Array,
        horizon: int | None = None,
    ) -> forward.Plan:
        return _decide(setup, horizon or setup.config.horizon, weights, contexts, target, key)

    return explain


def _decide(
    setup: _Setup,
    horizon: int,
    weights: Weights,
    contexts: context_lib.Context,
    target: Array,
    key: Array,
    scored_only: bool = False,
) -> forward.Plan:
    """Plan for every environment, each with a key of its own."""
    config, steps = setup.config, setup.steps
    world = make_world(setup.model, setup.world_model, weights, config, horizon, scored_only)

    def one(context: context_lib.Context, key: Array) -> forward.Plan:
        return forward.plan(
            key,
            context,
            target,
            world=world,
            value_fn=functools.partial(steps.value_fn, weights.critic),
            score_fn=steps.score_fn,
            weigh_fn=steps.weigh_fn,
            choose_fn=steps.choose_fn,
            num_candidates=config.candidates,
            length=steps.length_fn(context, horizon),
            spread=config.spread,
            fall_fn=steps.fall_fn and functools.partial(steps.fall_fn, weights.critic),
        )

    keys = jax.random.split(key, contexts.slot.shape[0])
    return over_environments(one, config.candidates, contexts, keys)


def over_environments(
    one: Callable[[context_lib.Context, Array], forward.Plan],
    candidates: int,
    contexts: context_lib.Context,
    keys: Array,
) -> forward.Plan:
    """Plan for E environments at once; on a CPU in groups whose candidates fill one chunk."""
    environments = len(keys)
    most = max(1, pruned.CHUNK // candidates)
    group = next(n for n in range(min(most, environments), 0, -1) if environments % n == 0)

    def all_at_once(contexts: context_lib.Context, keys: Array) -> forward.Plan:
        return jax.vmap(one)(contexts, keys)

    def in_groups(contexts: context_lib.Context, keys: Array) -> forward.Plan:
        return jax.lax.map(lambda x: one(*x), (contexts, keys), batch_size=group)

    in_turn = pruned.chunks_pay() and group < environments
    return in_groups(contexts, keys) if in_turn else all_at_once(contexts, keys)


def make_world(
    model: Model,
    world_model: Model | None,
    weights: Weights,
    config: PlanConfig,
    horizon: int,
    scored_only: bool,
) -> worlds.World:
    """Combine the model that proposes with the one that predicts; by default they are the same."""
    make = worlds.plain_world
    if config.pruned:
        make = functools.partial(pruned_world.pruned_world, scored_only=scored_only)
    world = make(model, weights.params, weights.stats, config, horizon)
    if world_model is None:
        return world
    return world._replace(rollout=make(world_model, *weights.world, config, horizon).rollout)


def check(model: Model, config: PlanConfig, critic_fn: object | None) -> None:
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
            f"this model predicts actions, not their distribution (head {heads.get('actions')!r}), "
            "so there is nothing to draw candidates from; pretrain one with variant=m3pc"
        )
    window, needed = model.config.window, config.history + config.horizon
    if needed > window:
        raise UserError(
            f"a history of {config.history} and a horizon of {config.horizon} steps need a window "
            f"of {needed}; this model has {window}"
        )
    if config.guidance in ("value", "critic") and critic_fn is None:
        raise UserError(
            f"guidance {config.guidance!r} needs a critic and this run has none; train one with "
            "`python -m experiments.critic --config.run=RUN`"
        )
    if config.discount is None:
        raise UserError(
            "a plan guided by a critic needs the discount that the critic was trained with; give "
            "PlanConfig(discount=...)"
        )
