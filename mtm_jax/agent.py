"""A pretrained run, loaded: act with it, imagine with it, ask it for actions.

    policy = mtm_jax.load("runs/pretrain/hopper-medium").policy()
    action = policy.act(obs)             # the first step of an episode
    action = policy.act(obs, reward)     # every further one
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

from mtm_jax import checkpoint, tokens
from mtm_jax.config import ModelConfig
from mtm_jax.envs import rollout
from mtm_jax.errors import UserError
from mtm_jax.model import Model, make_model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import roles
from mtm_jax.types import DataInfo, ModalitySpec


@dataclasses.dataclass(frozen=True)
class ReturnSummary:
    """Undiscounted episode returns of the training data."""

    best: float
    mean: float


@dataclasses.dataclass(frozen=True)
class Agent:
    """A pretrained model with what acting needs.

    Attributes:
        model, params, stats: the network, its parameters and its tokenisation.
        info: the data set and its environment.
        returns: of the training data.
        history: past steps in view when acting.
        step: optimiser steps of the checkpoint.
    """

    model: Model
    params: dict
    stats: Mapping[str, tokens.Stats]
    info: DataInfo
    returns: ReturnSummary
    history: int
    step: int

    def policy(
        self, prompt: str = "rcbc", target_fraction: float = 1.0, seed: int | None = None
    ) -> Policy:
        """Make a policy for one environment; see `Policy`."""
        return Policy(self, prompt, target_fraction, seed)

    def target_return(self, target_fraction: float) -> float:
        """Return to ask for: a fraction of the best in the training data, undiscounted."""
        return target_fraction * self.returns.best

    def actor(self, prompt: str, target_fraction: float) -> rollout.Actor:
        """Make a batched deterministic policy for `rollout.rollout`.

        Raises:
            UserError: the prompt is not a policy.
        """
        _check_prompt(prompt)
        target = jnp.float32(self.target_return(target_fraction) / self.info.max_episode_steps)
        choose = functools.partial(self._act, prompt=prompt)

        @jax.jit
        def begin(params: dict, stats: dict, obs: Array) -> tuple[Array, context_lib.Context]:
            contexts = jax.vmap(self._begin)(obs)
            return jax.vmap(lambda c: choose(params, stats, c, target))(contexts), contexts

        @jax.jit
        def act(
            params: dict,
            stats: dict,
            contexts: context_lib.Context,
            actions: Array,
            rewards: Array,
            obs: Array,
        ) -> tuple[Array, context_lib.Context]:
            extend = functools.partial(context_lib.extend, history=self.history)
            contexts = jax.vmap(extend)(contexts, actions, rewards, obs)
            return jax.vmap(lambda c: choose(params, stats, c, target))(contexts), contexts

        return rollout.Actor(
            begin=lambda obs: begin(self.params, self.stats, obs),
            act=lambda *args: act(self.params, self.stats, *args),
        )

    def imagine(self, obs: np.ndarray, actions: np.ndarray) -> roles.Imagined:
        """Roll actions out inside the model from one observation.

        Args:
            obs: [S].
            actions: [h, A] in the environment's units.

        Returns:
            next states [h, S], rewards [h] (None if the model has none), return tokens [h].
        """
        obs = check_observation(obs, self.info, self.stats)
        history = min(self.history, self.model.config.window - 2)
        context = self._begin(jnp.asarray(obs))
        return self._imagine(self.params, self.stats, context, self._to_unit(actions), history)

    def inverse_dynamics(self, states: np.ndarray) -> np.ndarray:
        """Infer the actions that led from each state to the next.

        Args:
            states: [n, S], at most as many as the window has slots.

        Returns:
            [n - 1, A] in the environment's units.

        Raises:
            UserError: more states than slots, or fewer than two.
        """
        window = self.model.config.window
        if not 2 <= len(states) <= window:
            raise UserError(
                f"inverse dynamics got {len(states)} states; give 2 to {window}, the model's window"
            )
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
        return jnp.asarray(2.0 * (np.asarray(actions, np.float32) - low) / (high - low) - 1.0)

    def _begin(self, obs: Array) -> context_lib.Context:
        return context_lib.begin(obs, len(self.info.action_low), self.model.config.window)

    def _act(
        self,
        params: dict,
        stats: Mapping[str, tokens.Stats],
        context: context_lib.Context,
        target: Array,
        prompt: str,
        key: Array | None = None,
    ) -> Array:
        return roles.act(self.model, params, stats, context, target, prompt, key)

    @functools.cached_property
    def _imagine(self) -> Any:
        return jax.jit(functools.partial(roles.imagine, self.model), static_argnums=4)

    @functools.cached_property
    def _inverse(self) -> Any:
        return jax.jit(functools.partial(roles.inverse_dynamics, self.model))


class Policy:
    """A policy for one environment, which remembers the episode so far.

    Call `reset()` (or make a new one) before each episode, then `act(obs, reward)` every step.
    """

    def __init__(
        self,
        agent: Agent,
        prompt: str = "rcbc",
        target_fraction: float = 1.0,
        seed: int | None = None,
    ):
        """Prepare to act.

        Args:
            agent: the pretrained model.
            prompt: "rcbc" or "bc".
            target_fraction: return to ask for, as a fraction of the best in the training data.
            seed: draw actions from the predicted distribution; None takes its mode.

        Raises:
            UserError: the prompt is not a policy.
        """
        _check_prompt(prompt)
        self.agent = agent
        self.env_id = agent.info.env_id
        self._key = None if seed is None else jax.random.key(seed)
        self._steps = 0
        target = agent.target_return(target_fraction) / agent.info.max_episode_steps
        self._target = jnp.float32(target)
        self._act = jax.jit(functools.partial(agent._act, prompt=prompt))
        self._extend = jax.jit(functools.partial(context_lib.extend, history=agent.history))
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
            UserError: an observation of the wrong shape or with NaN, or a reward that is missing
                or too early.
        """
        obs = jnp.asarray(check_observation(obs, self.agent.info, self.agent.stats))
        if (reward is None) != (self._context is None):
            raise UserError(
                "policy.act got no reward after the first step; pass the reward of the last action"
                if reward is None
                else "policy.act got a reward in the first step; call policy.act(obs) after reset()"
            )
        if self._context is None:
            self._context = self.agent._begin(obs)
        else:
            self._context = self._extend(self._context, self._action, jnp.float32(reward), obs)
        key = None if self._key is None else jax.random.fold_in(self._key, self._steps)
        self._steps += 1
        agent = self.agent
        self._action = self._act(agent.params, agent.stats, self._context, self._target, key=key)
        return agent.to_environment(self._action)


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
    checkpoints = checkpoint.Checkpoints(run)
    steps = checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        raise UserError(f"run {run} does not have {wanted}; it has those of steps {steps}")
    step = steps[-1] if step is None else step
    meta = checkpoints.restore_meta(step)
    saved = checkpoints.restore_model(step)
    return Agent(
        model=make_model(model_config_from_json(meta["model_config"])),
        params=jax.tree.map(jnp.asarray, saved["params"]),
        stats={m: tokens.Stats(**s) for m, s in saved["stats"].items()},
        info=info_from_json(meta["info"]),
        returns=ReturnSummary(**meta["returns"]),
        history=meta["history"],
        step=step,
    )


def describe(agent: Agent) -> dict[str, Any]:
    """Build the JSON that `load` reads back from a checkpoint."""
    return {
        "model_config": dataclasses.asdict(agent.model.config),
        "info": dataclasses.asdict(agent.info),
        "returns": dataclasses.asdict(agent.returns),
        "history": agent.history,
    }


def model_config_from_json(data: Mapping[str, Any]) -> ModelConfig:
    """Rebuild a ModelConfig from its JSON form."""
    modalities = tuple(ModalitySpec(**m) for m in data["modalities"])
    return ModelConfig(**(dict(data) | {"modalities": modalities}))


def info_from_json(data: Mapping[str, Any]) -> DataInfo:
    """Rebuild a DataInfo from its JSON form."""
    bounds = {k: tuple(data[k]) for k in ("action_low", "action_high")}
    return DataInfo(**(dict(data) | bounds))


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


def _check_prompt(prompt: str) -> None:
    if prompt not in roles.POLICIES:
        raise UserError(f"{prompt!r} is not a policy; choose one of {', '.join(roles.POLICIES)}")
