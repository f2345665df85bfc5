"""A pretrained run to work with: act with it, imagine with it, ask it for actions.

    policy = mtm_jax.load("runs/pretrain/hopper-medium").policy()
    action = policy.act(obs)             # the first step of an episode
    action = policy.act(obs, reward)     # every further one

Everything here is in the environment's units.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.agents import goal_reaching, inpainting, inputs, pretrained
from mtm_jax.agents import policy as policy_lib
from mtm_jax.config import GoalConfig, PlanConfig, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles

# Compiled once per model.
imagine = jax.jit(roles.imagine, static_argnames=("model", "history"))
infer_action = jax.jit(roles.inverse_dynamics, static_argnames="model")


@dataclasses.dataclass(frozen=True)
class Agent(pretrained.Pretrained):
    """A pretrained model and what it can be asked for; attributes as of `Pretrained`."""

    def policy(
        self,
        method: str = "rcbc",
        target_fraction: float = 1.0,
        seed: int | None = None,
        plan: PlanConfig | None = None,
        prompt: PromptConfig | None = None,
        goals: goal_reaching.Given | None = None,
        aim: GoalConfig | None = None,
    ) -> policy_lib.Policy:
        """Make a policy for one environment; see `Policy`."""
        how = {"plan": plan, "prompt": prompt, "goals": goals, "aim": aim}
        return policy_lib.Policy(self, method, target_fraction, seed, **how)

    def imagine(self, obs: np.ndarray, actions: np.ndarray) -> roles.Imagined:
        """Roll actions out inside the model from one observation.

        Args:
            obs: [S].
            actions: [h, A] in the environment's units.

        Returns:
            next states [h, S], rewards [h] and return tokens [h] (None if the model has none).

        Raises:
            UserError: a shape is wrong, a value is not finite, the window is a single step, or the
                model has no states or actions.
        """
        pretrained.require_modalities(self, "imagining", ("states", "actions"))
        window, action_dim = self.model.config.window, len(self.info.action_low)
        (obs,) = inputs.observations(inputs.numbers(obs, "the observation")[None], self)
        actions = self.from_environment(inputs.actions(actions, self))
        context = context_lib.begin(jnp.asarray(obs), action_dim, window)
        history = min(self.history, window - 2)
        return imagine(self.model, self.params, self.stats, context, actions, history)

    def inverse_dynamics(self, states: np.ndarray) -> np.ndarray:
        """Infer the actions that led from each state to the next.

        Args:
            states: [n, S], at most as many as the window has slots.

        Returns:
            [n - 1, A] in the environment's units.

        Raises:
            UserError: more states than slots, or fewer than two, or one that cannot be read.
        """
        pretrained.require_modalities(self, "inverse dynamics", ("states", "actions"))
        window = self.model.config.window
        states = inputs.observations(states, self, each="state")
        if not 2 <= len(states) <= window:
            raise UserError(
                f"inverse dynamics got {len(states)} states; give 2 to {window}, the model's window"
            )
        # Slots behind the last state repeat it: the prompt shows every state.
        padded = jnp.concatenate([states, jnp.repeat(states[-1:], window - len(states), 0)])
        actions = jnp.zeros((window, len(self.info.action_low)))
        for slot in range(len(states) - 1):
            action = infer_action(self.model, self.params, self.stats, padded, actions, slot)
            actions = actions.at[slot].set(action)
        return self.to_environment(actions[: len(states) - 1])

    def inpaint(
        self, values: Mapping[str, Any], visible: Mapping[str, Any], reconstruct: bool = False
    ) -> dict[str, np.ndarray]:
        """Predict every token of a window under any mask; see `inpainting.inpaint`."""
        return inpainting.inpaint(self, values, visible, reconstruct)


def load(run: str | pathlib.Path, step: int | None = None, weights: str = "auto") -> Agent:
    """Load the last checkpoint of a pretraining run.

    Args:
        run: the run folder.
        step: another checkpoint than the last.
        weights: "latest", the parameters after the last step; "average", their running average;
            "auto", the average where one was trained.

    Raises:
        UserError: there is no such run or checkpoint, it is damaged, or it has no average.
    """
    return of(pretrained.load(run, step, weights))


def of(found: pretrained.Pretrained) -> Agent:
    """Make an agent of what was loaded or trained."""
    return Agent(**{f.name: getattr(found, f.name) for f in dataclasses.fields(found)})
