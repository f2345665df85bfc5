"""A pretrained run, loaded: act with it, imagine with it, ask it for actions.

    policy = mtm_jax.load("runs/pretrain/hopper-medium").policy()
    action = policy.act(obs)             # the first step of an episode
    action = policy.act(obs, reward)     # every further one

Everything here is in the environment's units.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtm_jax import tokens
from mtm_jax.agents import actors, critic_files, model_files
from mtm_jax.agents import policy as policy_lib
from mtm_jax.config import PlanConfig
from mtm_jax.envs import rollout
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, manifest
from mtm_jax.models.trajectory_model import Model, make_model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles
from mtm_jax.training import iql
from mtm_jax.types import DataInfo


@dataclasses.dataclass(frozen=True)
class ReturnSummary:
    """Undiscounted episode returns of the training data; None where they have none."""

    best: float | None
    mean: float | None


@dataclasses.dataclass(frozen=True)
class Agent:
    """A pretrained model with what acting needs.

    Attributes:
        model, params, stats: the network, its parameters and its tokenisation.
        info: the data set and its environment.
        returns: of the training data.
        history: past steps in view when acting.
        step: optimiser steps of the checkpoint.
        critic: of the same run, if one was trained; `require_critic` insists on it.
        run: the folder that all of this was loaded from, if it was.
    """

    model: Model
    params: dict
    stats: Mapping[str, tokens.Stats]
    info: DataInfo
    returns: ReturnSummary
    history: int
    step: int
    critic: iql.Critic | None = None
    run: str = ""

    def require_critic(self) -> iql.Critic:
        """Return the critic.

        Raises:
            UserError: the run has none.
        """
        if self.critic is None:
            raise UserError(
                "this run has no critic; train one with python -m experiments.critic "
                f"--config.run={self.run or 'FOLDER'}"
            )
        return self.critic

    def policy(
        self,
        prompt: str = "rcbc",
        target_fraction: float = 1.0,
        seed: int | None = None,
        plan: PlanConfig | None = None,
    ) -> policy_lib.Policy:
        """Make a policy for one environment; see `Policy`."""
        return policy_lib.Policy(self, prompt, target_fraction, seed, plan)

    def target_return(self, target_fraction: float) -> float:
        """Return to ask for: a fraction of the best in the training data, undiscounted.

        Raises:
            UserError: the data have no returns.
        """
        if self.returns.best is None:
            raise UserError(
                f"{self.info.name} has no rewards, so there is no return to ask for; "
                "use the prompt bc"
            )
        return target_fraction * self.returns.best

    def actor(self, prompt: str, target_fraction: float) -> rollout.Actor:
        """Make a batched policy for `rollout.rollout`, which does not draw its actions.

        Raises:
            UserError: the prompt is not a policy, or the model cannot carry out its plans.
        """
        return actors.actor(self, prompt, target_fraction)

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
        obs = policy_lib.check_observation(obs, self.info, self.stats)
        history = min(self.history, self.model.config.window - 2)
        context = self._begin(jnp.asarray(obs))
        actions = self._to_unit(self._check_actions(actions))
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
        states = np.stack([policy_lib.check_observation(s, self.info, self.stats) for s in states])
        # Slots behind the last state repeat it: the prompt shows every state.
        padded = jnp.concatenate([states, jnp.repeat(states[-1:], window - len(states), 0)])
        actions = jnp.zeros((window, len(self.info.action_low)))
        for slot in range(len(states) - 1):
            action = self._inverse(self.params, self.stats, padded, actions, slot)
            actions = actions.at[slot].set(action)
        return self.to_environment(actions[: len(states) - 1])

    def to_environment(self, actions: Array) -> np.ndarray:
        """Map actions from [-1, 1] to the environment's bounds."""
        low, high = np.float32(self.info.action_low), np.float32(self.info.action_high)
        return low + 0.5 * (np.asarray(actions) + 1.0) * (high - low)

    def _to_unit(self, actions: np.ndarray) -> Array:
        low, high = np.float32(self.info.action_low), np.float32(self.info.action_high)
        return jnp.asarray(2.0 * (actions - low) / (high - low) - 1.0)

    def _check_actions(self, actions: np.ndarray) -> np.ndarray:
        actions, dims = np.asarray(actions, np.float32), len(self.info.action_low)
        if actions.ndim != 2 or len(actions) == 0 or actions.shape[1] != dims:
            raise UserError(
                f"actions have shape {actions.shape}; expected one row of {dims} per step, "
                "and at least one step"
            )
        if not np.isfinite(actions).all():
            step, dim = np.argwhere(~np.isfinite(actions))[0]
            raise UserError(f"actions are not finite: step {step}, dimension {dim}")
        return actions

    def _begin(self, obs: Array) -> context_lib.Context:
        return context_lib.begin(obs, len(self.info.action_low), self.model.config.window)

    # Compiled once for all policies of the agent.

    @functools.cached_property
    def choose_action(self) -> Any:
        """Compiled `roles.act` of this model."""
        return jax.jit(functools.partial(roles.act, self.model), static_argnames="prompt")

    @functools.cached_property
    def extend_context(self) -> Any:
        """Compiled `context.extend` with this agent's history."""
        return jax.jit(functools.partial(context_lib.extend, history=self.history))

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
    run = pathlib.Path(run)
    if not (run / "checkpoints").is_dir():
        raise UserError(f"no run in {run}: it has no folder 'checkpoints'; give a run folder")
    checkpoints = checkpoint.Checkpoints(run, read_only=True)
    steps = checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        raise UserError(f"run {run} does not have {wanted}; it has those of steps {steps}")

    def read(step: int) -> tuple[int, dict, dict]:
        meta = checkpoints.restore_meta(step)
        manifest.refuse_other_program(
            run, meta, ("model_config", "info", "returns", "history"), "pretrained model"
        )
        return step, meta, checkpoints.restore_model(step)

    offer = "step={step} loads it, experiments.pretrain continues from it with --config.use_older"
    step, meta, saved = checkpoints.newest(read, offer=offer) if step is None else read(step)
    stats = {m: tokens.Stats(**s) for m, s in saved["stats"].items()}
    critic = critic_files.load(run)
    critic_files.check(run, critic, stats["states"])
    return Agent(
        model=make_model(model_files.config_from_dict(meta["model_config"])),
        params=jax.tree.map(jnp.asarray, saved["params"]),
        stats=stats,
        info=info_from_json(meta["info"]),
        returns=ReturnSummary(**meta["returns"]),
        history=meta["history"],
        step=step,
        critic=critic,
        run=str(run),
    )


def describe(agent: Agent) -> dict[str, Any]:
    """Build the JSON that `load` reads back from a checkpoint."""
    return {
        "model_config": model_files.config_to_dict(agent.model.config),
        "info": dataclasses.asdict(agent.info),
        "returns": dataclasses.asdict(agent.returns),
        "history": agent.history,
    }


def info_from_json(data: Mapping[str, Any]) -> DataInfo:
    """Rebuild a DataInfo from its JSON form."""
    bounds = {k: tuple(data[k]) for k in ("action_low", "action_high")}
    return DataInfo(**(dict(data) | bounds))
