"""Acting in one environment with a pretrained model."""

from __future__ import annotations

import numpy as np

from mtm_jax.agents import acting, goal_reaching, inputs
from mtm_jax.agents.actor import Memory
from mtm_jax.agents.pretrained import Pretrained
from mtm_jax.config import GoalConfig, PlanConfig, PromptConfig
from mtm_jax.errors import UserError


class Policy:
    """An actor with one environment, which keeps the memory of the episode itself.

    Call `reset()` (or make a new one) before each episode, then `act(obs, reward)` every step.
    """

    def __init__(
        self,
        agent: Pretrained,
        method: str = "rcbc",
        target_fraction: float = 1.0,
        seed: int | None = None,
        plan: PlanConfig | None = None,
        prompt: PromptConfig | None = None,
        goals: goal_reaching.Given | None = None,
        aim: GoalConfig | None = None,
    ):
        """Prepare to act.

        Args:
            agent: the pretrained model.
            method: "rcbc" or "bc", one of `planner.GUIDANCE` to plan, or one of
                `goal_reaching.METHODS` to act towards goals.
            target_fraction: return to ask for; see `Pretrained.target_return`.
            seed: draw actions from the predicted distribution, or among the plan's candidates;
                None takes what `prompt` says, its mode by default, or their expectation.
            plan: how to plan, with the guidance of the method; by default `planner.plan_config`.
            prompt: how to act by a prompt, for "rcbc" and "bc"; by default `PromptConfig()`.
            goals, aim: states to pass through, and how to aim at them; see `acting.make_actor`.

        Raises:
            UserError: there is no such method, the model cannot act by it, or an argument is of
                the wrong kind.
        """
        self._actor = acting.make_actor(
            *(agent, method),
            plan=plan,
            prompt=prompt,
            target_fraction=target_fraction,
            seed=0 if seed is None else seed,
            explore=seed is not None,
            goals=goals,
            aim=aim,
        )
        self.agent, self.env_id = agent, agent.info.env_id
        self._decisions = 0  # in all episodes
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self._memory: Memory | None = None
        self._action: np.ndarray | None = None  # the last one, [1, A] in [-1, 1]

    def act(self, obs: np.ndarray, reward: float | None = None) -> np.ndarray:
        """Choose an action, [A] in the environment's units.

        Args:
            obs: what the environment shows now, [S].
            reward: of the previous action; None in the first step of an episode only.

        Raises:
            UserError: an observation or a reward that cannot be read, or a reward that is missing
                or too early. The episode so far stays as it was.
        """
        obs = inputs.numbers(obs, "the observation")[None]
        if (reward is None) != (self._memory is None):
            raise UserError(
                "policy.act got no reward after the first step; pass the reward of the last action"
                if reward is None
                else "policy.act got a reward in the first step; call policy.act(obs) after reset()"
            )
        if reward is None:
            memory = self._actor.start(obs, self._decisions)
        else:
            reward = inputs.one_reward(reward)
            memory = self._actor.observe(self._memory, self._action, reward, obs)
        self._action = self._actor.decide(memory)
        self._memory, self._decisions = memory, memory.decisions + 1
        return self.agent.to_environment(self._action[0])
