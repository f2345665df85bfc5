"""Acting in many environments at once with a pretrained model, or with several of one kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.agents import planner
from mtm_jax.agents import policy as policy_lib
from mtm_jax.envs import rollout
from mtm_jax.errors import UserError
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles
from mtm_jax.training import trainer as training

if TYPE_CHECKING:
    from mtm_jax.agents import pretrained as agent_lib


class _Functions(NamedTuple):
    """A policy of given parameters, for a batch of environments; see `rollout.Actor`."""

    begin: Callable
    act: Callable


def actor(agent: agent_lib.Agent, prompt: str, target_fraction: float) -> rollout.Actor:
    """Make a batched policy for `rollout.rollout`, which does not draw its actions.

    Args:
        agent: the pretrained model.
        prompt: "rcbc" or "bc", or "m3pc_m" or "m3pc_q" to plan with it.
        target_fraction: return to ask for, as a fraction of the best in the training data.

    Raises:
        UserError: the prompt is not a policy, or the model cannot carry out its plans.
    """
    if prompt in planner.GUIDANCE:
        return planner.actor(agent, planner.plan_config(prompt), target_fraction)
    begin, act = map(jax.jit, _functions(agent, prompt, target_fraction))
    return rollout.Actor(
        begin=lambda obs: begin(agent.params, agent.stats, obs),
        act=lambda *args: act(agent.params, agent.stats, *args),
    )


def group_actor(
    agents: Sequence[agent_lib.Agent], prompt: str, target_fraction: float
) -> rollout.Actor:
    """Make one policy of several models: in the first E environments the first one acts, and so on.

    Args:
        agents: models of one configuration, trained on one data set.
        prompt, target_fraction: see `actor`; "rcbc" or "bc".

    Raises:
        UserError: the prompt is not a policy, or the models differ in more than parameters.
    """
    first, *others = agents
    for other in others:
        if (other.model.config, other.info, other.history) != (
            *(first.model.config, first.info, first.history),
        ):
            raise UserError("models that act together must be of one configuration and data set")
    functions = _functions(first, prompt, target_fraction)
    params = training.stack([agent.params for agent in agents])

    def each(function: Callable) -> Callable:
        """Let every model see its own rows."""

        def together(params: dict, stats: dict, *rows: Array) -> tuple:
            rows = jax.tree.map(lambda x: x.reshape(len(agents), -1, *x.shape[1:]), rows)
            found = jax.vmap(lambda p, r: function(p, stats, *r))(params, rows)
            return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), found)

        return jax.jit(together)

    begin, act = map(each, functions)
    return rollout.Actor(
        begin=lambda obs: begin(params, first.stats, obs),
        act=lambda *args: act(params, first.stats, *args),
    )


def _functions(agent: agent_lib.Agent, prompt: str, target_fraction: float) -> _Functions:
    policy_lib.check_prompt(prompt)
    asked = agent.target_return(target_fraction) if prompt == "rcbc" else 0.0
    target = jnp.float32(asked / agent.info.max_episode_steps)
    choose = functools.partial(roles.act, agent.model, prompt=prompt)
    action_dim, window = len(agent.info.action_low), agent.model.config.window

    def begin(params: dict, stats: dict, obs: Array) -> tuple[Array, context_lib.Context]:
        first = functools.partial(context_lib.begin, action_dim=action_dim, window=window)
        contexts = jax.vmap(first)(obs)
        return jax.vmap(lambda c: choose(params, stats, c, target))(contexts), contexts

    def act(
        params: dict,
        stats: dict,
        contexts: context_lib.Context,
        actions: Array,
        rewards: Array,
        obs: Array,
    ) -> tuple[Array, context_lib.Context]:
        extend = functools.partial(context_lib.extend, history=agent.history)
        contexts = jax.vmap(extend)(contexts, actions, rewards, obs)
        return jax.vmap(lambda c: choose(params, stats, c, target))(contexts), contexts

    return _Functions(begin, act)
