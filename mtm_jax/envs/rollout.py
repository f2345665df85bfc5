"""Vectorised episodes in gymnasium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from mtm_jax.envs import make


class Episodes(NamedTuple):
    """Finished episodes."""

    returns: np.ndarray  # [E] float64, undiscounted
    lengths: np.ndarray  # [E] int
    # Whether the task was done after any step, and after the last one, as the environment's
    # info["success"] says; None where it does not.
    successes: np.ndarray | None = None  # [E] bool
    final_successes: np.ndarray | None = None  # [E] bool


class Actor(Protocol):
    """What a rollout asks of a policy for E environments; its memory goes in and comes out.

    Observations are [E, S], rewards [E], actions [E, A] in [-1, 1].
    """

    def start(self, obs: np.ndarray) -> Any:
        """Begin episodes: first observations -> memory."""
        ...

    def decide(self, memory: Any) -> np.ndarray:
        """Choose actions for the present observations."""
        ...

    def observe(
        self, memory: Any, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> Any:
        """Remember a step: actions as executed, their rewards and what followed -> memory."""
        ...


def rollout(
    env_id: str,
    actor: Actor,
    episodes: int,
    seed: int,
    max_episode_steps: int | None = None,
    on_step: Callable[[int, int], None] = lambda step, alive: None,
    copies: int = 1,
) -> Episodes:
    """Run one episode in each of `episodes` environments, all stepped together.

    Args:
        env_id: an id of the registry.
        actor: the policy.
        episodes: E.
        seed: environment e is reset with seed + e.
        max_episode_steps: a time limit other than the environment's own.
        on_step: called with the step and the number of episodes that still run.
        copies: how often each environment is there, for an actor that joins as many policies; the
            rows of everything are those of the first copies, then of the second, and so on.

    Raises:
        UserError: the id is not in the registry.
    """
    envs = make.make_vec(env_id, copies * episodes, max_episode_steps=max_episode_steps)
    try:
        return _run(envs, actor, [seed + e for e in range(episodes)] * copies, on_step)
    finally:
        envs.close()


def split(episodes: Episodes, copies: int) -> list[Episodes]:
    """Take the episodes of each copy."""
    parts = [[None] * copies if x is None else np.split(x, copies) for x in episodes]
    return [Episodes(*part) for part in zip(*parts, strict=True)]


def _run(
    envs: gymnasium.vector.VectorEnv, actor: Actor, seeds: list[int], on_step: Callable
) -> Episodes:
    low, high = envs.single_action_space.low, envs.single_action_space.high
    # What an environment does after its episode has ended is not counted.
    obs, _ = envs.reset(seed=seeds)
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int)
    alive = np.ones(envs.num_envs, bool)
    successes = _Successes(envs.num_envs)
    memory = actor.start(obs.astype(np.float32))
    while True:
        actions = actor.decide(memory)
        raw = low + 0.5 * (np.asarray(actions) + 1.0) * (high - low)
        obs, rewards, terminated, truncated, infos = envs.step(raw.astype(low.dtype))
        returns += np.where(alive, rewards, 0.0)
        lengths += alive
        successes.add(infos, alive)
        alive &= ~(terminated | truncated)
        on_step(int(lengths.max()), int(alive.sum()))
        if not alive.any():
            return Episodes(returns, lengths, *successes.result())
        step = actions, rewards.astype(np.float32), obs.astype(np.float32)
        memory = actor.observe(memory, *step)


class _Successes:
    """What the environments say of their tasks, step by step."""

    def __init__(self, count: int):
        self._known = False
        self._ever, self._last = np.zeros(count, bool), np.zeros(count, bool)

    def add(self, infos: dict[str, Any], alive: np.ndarray) -> None:
        """Count one step; an environment that was reset in it says nothing."""
        if "success" in infos:
            self._known = True
            done = infos["success"].astype(bool) & infos["_success"]
            self._ever |= done & alive
            self._last = np.where(alive, done, self._last)

    def result(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        return (self._ever, self._last) if self._known else (None, None)
