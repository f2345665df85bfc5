"""Vectorised episodes in gymnasium."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from mtm_jax.envs import make, simulations


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
    options: Mapping[str, Any] | None = None,
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
        options: further arguments of the environment, such as `make.without_falls`.

    Raises:
        UserError: the id is not in the registry.
    """
    seeds = [seed + e for e in range(episodes)] * copies
    envs = make.make_vec(env_id, len(seeds), max_episode_steps=max_episode_steps, **(options or {}))
    try:
        return _run(_faster(envs), actor, seeds, on_step)
    finally:
        envs.close()


class Recorder:
    """An actor that keeps the observations which another one acts on."""

    def __init__(self, actor: Actor):
        self._actor = actor
        self._observations: list[np.ndarray] = []

    def start(self, obs: np.ndarray) -> Any:
        """See `Actor.start`."""
        self._observations = [obs]
        return self._actor.start(obs)

    def decide(self, memory: Any) -> np.ndarray:
        """See `Actor.decide`."""
        return self._actor.decide(memory)

    def observe(
        self, memory: Any, actions: np.ndarray, rewards: np.ndarray, obs: np.ndarray
    ) -> Any:
        """See `Actor.observe`."""
        self._observations.append(obs)
        return self._actor.observe(memory, actions, rewards, obs)

    def observations(self) -> np.ndarray:
        """The observations of all steps, [L, E, S]; that after the last one is not seen."""
        return np.stack(self._observations)


def split(episodes: Episodes, copies: int) -> list[Episodes]:
    """Take the episodes of each copy."""
    parts = [[None] * copies if x is None else np.split(x, copies) for x in episodes]
    return [Episodes(*part) for part in zip(*parts, strict=True)]


class _Gymnasium:
    """Any environments. What one does after its episode has ended is not counted."""

    def __init__(self, envs: gymnasium.vector.VectorEnv):
        self.low, self.high = envs.single_action_space.low, envs.single_action_space.high
        self.count = envs.num_envs
        self._envs = envs

    def reset(self, seeds: list[int]) -> np.ndarray:
        return self._envs.reset(seed=seeds)[0]

    def step(self, actions: np.ndarray, alive: np.ndarray) -> tuple:
        obs, rewards, terminated, truncated, infos = self._envs.step(actions)
        return obs, rewards, terminated | truncated, infos


class _Simulated:
    """Locomotion, to the last bit like `_Gymnasium`: wrappers and ended episodes cost no time."""

    def __init__(self, envs: gymnasium.vector.SyncVectorEnv):
        self.low, self.high = envs.single_action_space.low, envs.single_action_space.high
        self.count = envs.num_envs
        self._limit = envs.envs[0].spec.max_episode_steps
        self._envs = simulations.simulate([env.unwrapped for env in envs.envs])

    def reset(self, seeds: list[int]) -> np.ndarray:
        firsts = [env.reset(seed=s)[0] for env, s in zip(self._envs.envs, seeds, strict=True)]
        self._obs, self._steps = np.stack(firsts), 0
        return self._obs

    def step(self, actions: np.ndarray, alive: np.ndarray) -> tuple:
        running, self._steps = np.flatnonzero(alive), self._steps + 1
        rewards, ended = np.zeros(self.count), np.full(self.count, self._steps == self._limit)
        self._obs = self._obs.copy()
        self._obs[running], rewards[running], fallen = self._envs.step(running, actions[running])
        ended[running] |= fallen
        return self._obs, rewards, ended, {}


def _faster(envs: gymnasium.vector.VectorEnv) -> _Gymnasium | _Simulated:
    """Step the bare simulators where this gives the same numbers."""
    known = isinstance(envs, gymnasium.vector.SyncVectorEnv)
    bare = known and simulations.are_locomotion([env.unwrapped for env in envs.envs])
    return _Simulated(envs) if bare else _Gymnasium(envs)


def _run(
    envs: _Gymnasium | _Simulated, actor: Actor, seeds: list[int], on_step: Callable
) -> Episodes:
    low, high = envs.low, envs.high
    obs = envs.reset(seeds)
    returns, lengths = np.zeros(envs.count), np.zeros(envs.count, int)
    alive = np.ones(envs.count, bool)
    successes = _Successes(envs.count)
    memory = actor.start(obs.astype(np.float32))
    while True:
        actions = actor.decide(memory)
        raw = low + 0.5 * (np.asarray(actions) + 1.0) * (high - low)
        obs, rewards, ended, infos = envs.step(raw.astype(low.dtype), alive)
        returns += np.where(alive, rewards, 0.0)
        lengths += alive
        successes.add(infos, alive)
        alive &= ~ended
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
