"""Acting by forward M3PC: `planning.forward` with a run's model, critic and episodes."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax.config import PlanConfig
from mtm_jax.envs import rollout
from mtm_jax.errors import UserError
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import forward
from mtm_jax.training import iql

if TYPE_CHECKING:
    from mtm_jax.agents import pretrained as agent_lib

# Method -> what guides it (M3PC table 1).
GUIDANCE = {"m3pc_m": "returns", "m3pc_q": "critic"}


class Decider:
    """Compiled plans of one run for any number of environments.

    Everything that changes with the episode goes in and comes out: contexts and keys.
    """

    def __init__(
        self,
        agent: agent_lib.Agent,
        config: PlanConfig,
        target_fraction: float = 1.0,
        explore: bool = False,
        world: agent_lib.Agent | None = None,
    ):
        """Check the plan and prepare to compile it.

        Args:
            agent: the pretrained model, with its critic under guidance "critic".
            config: of the plan; contexts keep its history, which may differ from the agent's.
            target_fraction: return to ask the proposing policy for, as a fraction of the best.
            explore: draw actions instead of taking expectations.
            world: the model that predicts what candidates lead to; by default `agent` itself.

        Raises:
            UserError: the model cannot carry out the plan, or there is no critic to guide it.
        """
        needs_critic = config.guidance == "critic"
        critic = agent.require_critic() if needs_critic else None
        config = with_discount(config, agent)
        self.agent, self.config = agent, config
        if world is not None:
            require_same_task(agent, world)
        self._weights = forward.Weights(
            agent.params,
            agent.stats,
            (critic.params, critic.stats) if needs_critic else None,
            None if world is None else (world.params, world.stats),
        )
        limit = agent.info.max_episode_steps
        self.target = jnp.float32(agent.target_return(target_fraction) / limit)
        value = least_q if needs_critic else None
        world_model = None if world is None else world.model
        self._planner = forward.make_planner(
            agent.model, config, limit, value, explore, world_model
        )
        action_dim, window = len(agent.info.action_low), agent.model.config.window
        begin = functools.partial(context_lib.begin, action_dim=action_dim, window=window)
        extend = functools.partial(context_lib.extend, history=config.history)
        self._begin = jax.jit(jax.vmap(begin))
        self._extend = jax.jit(jax.vmap(extend))

    def begin(self, obs: np.ndarray) -> context_lib.Context:
        """Start episodes with their first observations, [E, S]; the result has a leading axis E.

        Raises:
            UserError: see `check_observations`.
        """
        return self._begin(check_observations(obs, self.agent))

    def extend(
        self, contexts: context_lib.Context, actions: Array, rewards: Array, obs: np.ndarray
    ) -> context_lib.Context:
        """Add a finished step, [E, A] in [-1, 1] and [E], and what followed it, [E, S].

        Raises:
            UserError: see `check_observations`.
        """
        obs = check_observations(obs, self.agent)
        return self._extend(contexts, actions, rewards, obs)

    def decide(self, contexts: context_lib.Context, key: Array) -> np.ndarray:
        """Choose actions, [E, A] in [-1, 1], for contexts with a leading axis E.

        Raises:
            UserError: a utility is not finite; it names the candidate and what is wrong with it.
        """
        actions, sound = self._planner.act(self._weights, contexts, self.target, key)
        if not np.all(sound):
            raise UserError(self._diagnose(contexts, key, int(np.argmin(sound))))
        return np.asarray(actions)

    def explain(self, contexts: context_lib.Context, key: Array) -> forward.Plan:
        """Show the plans behind `decide`, with a leading axis E on every field."""
        full = bool((contexts.slot == self.config.history).all())
        horizon = self.config.horizon + (0 if full else self.config.history)
        return self._planner.explain(self._weights, contexts, self.target, key, horizon=horizon)

    def _diagnose(self, contexts: context_lib.Context, key: Array, env: int) -> str:
        plan = jax.tree.map(lambda x: np.asarray(x[env]), self.explain(contexts, key))
        candidate = int(np.argmin(np.isfinite(plan.utilities)))
        parts = {  # the last step's reward has no part in the utility
            "action": plan.candidates[candidate].sum(-1),
            "predicted state": plan.rollout.states[candidate].sum(-1),
            "predicted reward": plan.rollout.rewards[candidate][: plan.length - 1],
            "value": plan.values[candidate],
        }
        reasons = [
            f"its {name} of step {np.argmin(np.isfinite(x[: plan.length])) + 1} of the horizon is "
            f"{x[np.argmin(np.isfinite(x[: plan.length]))]}"
            for name, x in parts.items()
            if not np.isfinite(x[: plan.length]).all()
        ]
        return (
            f"planning went wrong in environment {env} at step {int(contexts.t[env])}: the "
            f"utility of candidate {candidate} of {self.config.candidates} is "
            f"{plan.utilities[candidate]}, because {reasons[0] if reasons else 'it is too large'}; "
            "the checkpoint of the model or of the critic is not usable"
        )


def check_observations(obs: np.ndarray, agent: agent_lib.Agent) -> np.ndarray:
    """Refuse observations that the model cannot read, [E, S]; return them as float32.

    Raises:
        UserError: the shape is wrong, or a value is not finite; it names environment and dimension.
    """
    obs = np.asarray(obs, np.float32)
    expected = agent.stats["states"].mean.shape
    if obs.ndim != 2 or obs.shape[1:] != expected:
        raise UserError(
            f"observations have shape {obs.shape}; {agent.info.env_id} has {expected}, and the "
            "first axis is that of the environments"
        )
    if not np.isfinite(obs).all():
        env, dimension = np.argwhere(~np.isfinite(obs))[0].tolist()
        raise UserError(
            f"the observation of environment {env} is not finite: dimension {dimension} is "
            f"{obs[env, dimension]}; look for the cause in the simulator"
        )
    return obs


def require_same_task(agent: agent_lib.Agent, world: agent_lib.Agent) -> None:
    """Refuse a world model of other states, actions, window or episodes.

    Raises:
        UserError: it names what differs, with both values.
    """
    for what in ("env_id", "action_low", "max_episode_steps"):
        ours, theirs = getattr(agent.info, what), getattr(world.info, what)
        if ours != theirs:
            raise UserError(f"the world model's {what} is {theirs}, the policy's is {ours}")
    ours, theirs = agent.model.config.window, world.model.config.window
    if ours != theirs:
        raise UserError(f"the world model's window is {theirs} steps, the policy's is {ours}")


def with_discount(config: PlanConfig, agent: agent_lib.Agent) -> PlanConfig:
    """Give a plan that names no discount that of the critic which guides it."""
    if config.discount is not None or agent.critic is None:
        return config
    return dataclasses.replace(config, discount=agent.critic.config.discount)


def least_q(critic: tuple, states: Array, actions: Array) -> Array:
    """Value steps by the least member of the ensemble: [..., S] raw, [..., A] -> [...]."""
    params, stats = critic
    return iql.q_values(params, stats, states, actions).min(0)


def actor(
    agent: agent_lib.Agent,
    config: PlanConfig,
    target_fraction: float = 1.0,
    seed: int = 0,
    world: agent_lib.Agent | None = None,
) -> rollout.Actor:
    """Make a batched planning policy for `rollout.rollout`; it takes expectations.

    Args:
        agent, config, target_fraction, world: see `Decider`.
        seed: of the candidates.

    Raises:
        UserError: see `Decider`.
    """
    decider = Decider(agent, config, target_fraction, world=world)
    key = jax.random.key(seed)

    def begin(obs: np.ndarray) -> tuple[np.ndarray, Any]:
        contexts = decider.begin(obs)
        return decider.decide(contexts, jax.random.fold_in(key, 0)), (contexts, 1)

    def act(
        memory: Any, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> tuple[np.ndarray, Any]:
        contexts, count = memory
        contexts = decider.extend(contexts, actions, rewards, obs)
        return decider.decide(contexts, jax.random.fold_in(key, count)), (contexts, count + 1)

    return rollout.Actor(begin, act)


def check_guidance(method: str, plan: PlanConfig) -> None:
    """Refuse a plan that something else guides than a method says.

    Raises:
        UserError: names both.
    """
    if plan.guidance != GUIDANCE[method]:
        raise UserError(
            f"{method} is guided by {GUIDANCE[method]!r} and this plan by {plan.guidance!r}; give "
            f"PlanConfig(guidance={GUIDANCE[method]!r}, ...)"
        )


def plan_config(method: str, **settings: Any) -> PlanConfig:
    """Build the settings of a planning method.

    Args:
        method: "m3pc_m" or "m3pc_q".
        settings: fields of `PlanConfig` that differ from its defaults.

    Raises:
        UserError: the method does not plan, a field is unknown, or a value is out of range.
    """
    if method not in GUIDANCE:
        raise UserError(f"{method!r} does not plan; choose {' or '.join(GUIDANCE)}")
    known = {field.name for field in dataclasses.fields(PlanConfig)} - {"guidance"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UserError(
            f"a plan has no {', '.join(unknown)}; its settings are {', '.join(sorted(known))}"
        )
    return PlanConfig(guidance=GUIDANCE[method], **settings)
