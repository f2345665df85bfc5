"""Acting in one environment with a pretrained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax import tokens
from mtm_jax.agents import planner
from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles
from mtm_jax.types import DataInfo

if TYPE_CHECKING:
    from mtm_jax.agents import pretrained as agent_lib


class Policy:
    """A policy for one environment, which remembers the episode so far.

    Call `reset()` (or make a new one) before each episode, then `act(obs, reward)` every step.
    """

    def __init__(
        self,
        agent: agent_lib.Agent,
        prompt: str = "rcbc",
        target_fraction: float = 1.0,
        seed: int | None = None,
        plan: PlanConfig | None = None,
    ):
        """Prepare to act.

        Args:
            agent: the pretrained model.
            prompt: "rcbc" or "bc", or "m3pc_m" or "m3pc_q" to plan with it.
            target_fraction: return to ask for, as a fraction of the best in the training data.
            seed: draw actions from the predicted distribution, or among the plans; None takes
                its mode, or their expectation.
            plan: how to plan, guided as the prompt says; by default `planner.plan_config`.

        Raises:
            UserError: the prompt is not a policy, the model has no distribution to draw from, or
                it cannot carry out the plan, or the plan is guided by something else.
        """
        self._decider = None
        if prompt in planner.GUIDANCE:
            plan = planner.plan_config(prompt) if plan is None else plan
            planner.check_guidance(prompt, plan)
            self._decider = planner.Decider(agent, plan, target_fraction, seed is not None)
            seed = seed or 0  # of the candidates
        else:
            check_prompt(prompt)
        if seed is not None:
            _check_draws(agent)
        self.agent = agent
        self._prompt = prompt
        self.env_id = agent.info.env_id
        self._key = None if seed is None else jax.random.key(seed)
        self._steps = 0
        target = 0.0 if prompt == "bc" else agent.target_return(target_fraction)
        self._target = jnp.float32(target / agent.info.max_episode_steps)
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self._context: context_lib.Context | None = None
        self._action: Array | None = None

    def act(self, obs: np.ndarray, reward: float | None = None) -> np.ndarray:
        """Choose an action, [A] in the environment's units.

        Args:
            obs: what the environment shows now, [S].
            reward: of the previous action; None in the first step of an episode only.

        Raises:
            UserError: an observation of the wrong shape or with NaN, or a reward that is missing,
                too early or NaN. The episode so far stays as it was.
        """
        obs = jnp.asarray(check_observation(obs, self.agent.info, self.agent.stats))
        if (reward is None) != (self._context is None):
            raise UserError(
                "policy.act got no reward after the first step; pass the reward of the last action"
                if reward is None
                else "policy.act got a reward in the first step; call policy.act(obs) after reset()"
            )
        if reward is not None and not np.isfinite(reward):
            raise UserError(f"policy.act got the reward {reward}; it must be finite")
        agent = self.agent
        if reward is None:
            action_dim, window = len(agent.info.action_low), agent.model.config.window
            self._context = context_lib.begin(obs, action_dim, window)
        else:
            self._context = self._extend(jnp.float32(reward), obs)
        key = None if self._key is None else jax.random.fold_in(self._key, self._steps)
        self._steps += 1
        self._action = self._choose(key)
        return agent.to_environment(self._action)

    def _extend(self, reward: Array, obs: Array) -> context_lib.Context:
        step = (self._context, self._action, reward, obs)
        if self._decider is None:
            return self.agent.extend_context(*step)
        # Its history may be another than the agent's.
        one = jax.tree.map(lambda x: x[None], step)
        return jax.tree.map(lambda x: x[0], self._decider.extend(*one))

    def _choose(self, key: Array | None) -> Array:
        agent = self.agent
        if self._decider is not None:
            contexts = jax.tree.map(lambda x: x[None], self._context)
            return jnp.asarray(self._decider.decide(contexts, key)[0])
        return agent.choose_action(
            agent.params, agent.stats, self._context, self._target, prompt=self._prompt, key=key
        )


def check_observation(
    obs: np.ndarray, info: DataInfo, stats: Mapping[str, tokens.Stats]
) -> np.ndarray:
    """Refuse an observation that the model cannot read; return it as float32.

    Raises:
        UserError: the shape is wrong, or a value is not finite.
    """
    obs = np.asarray(obs, np.float32)
    expected = stats["states"].mean.shape
    if obs.shape != expected:
        raise UserError(f"observation has shape {obs.shape}, {info.env_id} has {expected}")
    if not np.isfinite(obs).all():
        first = int(np.argmin(np.isfinite(obs)))
        raise UserError(f"observation is not finite: dimension {first} is {obs[first]}")
    return obs


def _check_draws(agent: agent_lib.Agent) -> None:
    head = next(m.head for m in agent.model.config.modalities if m.name == "actions")
    if head != "tanh_normal":
        raise UserError(
            f"this model predicts single actions (head {head!r}), so a seed draws nothing; "
            "leave the seed out"
        )


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that is not a policy.

    Raises:
        UserError: it names the prompts that are.
    """
    if prompt not in roles.POLICIES:
        known = ", ".join((*roles.POLICIES, *planner.GUIDANCE))
        raise UserError(f"{prompt!r} is not a policy; choose one of {known}")
