"""A pretrained run to work with: act with it, imagine with it, ask it for actions.

    policy = mtm_jax.load("runs/pretrain/hopper-medium").policy()
    action = policy.act(obs)             # the first step of an episode
    action = policy.act(obs, reward)     # every further one

Everything here is in the environment's units.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.agents import observations, pretrained
from mtm_jax.agents import policy as policy_lib
from mtm_jax.config import PlanConfig
from mtm_jax.errors import UserError
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles


@dataclasses.dataclass(frozen=True)
class Agent(pretrained.Pretrained):
    """A pretrained model and what it can be asked for; attributes as of `Pretrained`."""

    def policy(
        self,
        method: str = "rcbc",
        target_fraction: float = 1.0,
        seed: int | None = None,
        plan: PlanConfig | None = None,
    ) -> policy_lib.Policy:
        """Make a policy for one environment; see `Policy`."""
        return policy_lib.Policy(self, method, target_fraction, seed, plan)

    def imagine(self, obs: np.ndarray, actions: np.ndarray) -> roles.Imagined:
        """Roll actions out inside the model from one observation.

        Args:
            obs: [S].
            actions: [h, A] in the environment's units.

        Returns:
            next states [h, S], rewards [h] (None if the model has none), return tokens [h].

        Raises:
            UserError: a shape is wrong, a value is not finite, or the window is a single step.
        """
        window = self.model.config.window
        obs = jnp.asarray(observations.one(obs, self))
        actions = self.from_environment(self._check_actions(actions))
        context = context_lib.begin(obs, len(self.info.action_low), window)
        history = min(self.history, window - 2)
        return self._imagine(self.params, self.stats, context, actions, history)

    def inverse_dynamics(self, states: np.ndarray) -> np.ndarray:
        """Infer the actions that led from each state to the next.

        Args:
            states: [n, S], at most as many as the window has slots.

        Returns:
            [n - 1, A] in the environment's units.

        Raises:
            UserError: more states than slots, or fewer than two, or one that cannot be read.
        """
        window = self.model.config.window
        if not 2 <= len(states) <= window:
            raise UserError(
                f"inverse dynamics got {len(states)} states; give 2 to {window}, the model's window"
            )
        states = np.stack([observations.one(state, self) for state in states])
        # Slots behind the last state repeat it: the prompt shows every state.
        padded = jnp.concatenate([states, jnp.repeat(states[-1:], window - len(states), 0)])
        actions = jnp.zeros((window, len(self.info.action_low)))
        for slot in range(len(states) - 1):
            action = self._inverse(self.params, self.stats, padded, actions, slot)
            actions = actions.at[slot].set(action)
        return self.to_environment(actions[: len(states) - 1])

    def _check_actions(self, actions: np.ndarray) -> np.ndarray:
        actions, dims = observations.numbers(actions, "actions"), len(self.info.action_low)
        if actions.ndim != 2 or len(actions) == 0 or actions.shape[1] != dims:
            raise UserError(
                f"actions have shape {actions.shape}; expected one row of {dims} per step, "
                "and at least one step"
            )
        if not np.isfinite(actions).all():
            step, dim = np.argwhere(~np.isfinite(actions))[0]
            raise UserError(f"actions are not finite: step {step}, dimension {dim}")
        return actions

    @functools.cached_property
    def _imagine(self) -> Any:
        return jax.jit(functools.partial(roles.imagine, self.model), static_argnums=4)

    @functools.cached_property
    def _inverse(self) -> Any:
        return jax.jit(functools.partial(roles.inverse_dynamics, self.model))


def load(run: str | pathlib.Path, step: int | None = None) -> Agent:
    """Load the last checkpoint of a pretraining run.

    Args:
        run: the run folder.
        step: another checkpoint than the last.

    Raises:
        UserError: there is no such run or checkpoint, or it is damaged.
    """
    return of(pretrained.load(run, step))


def of(found: pretrained.Pretrained) -> Agent:
    """Make an agent of what was loaded or trained."""
    return Agent(**{f.name: getattr(found, f.name) for f in dataclasses.fields(found)})
