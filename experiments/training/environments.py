"""Environments that a training steps together, and that can be put on hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtm_jax.envs import make, registry, simulator
from mtm_jax.training import sac

RECENT = 20  # finished episodes whose returns are kept


class Environments:
    """Environments that restart by themselves, with the returns of finished episodes."""

    def __init__(self, spec: registry.EnvSpec, count: int, seed: int):
        self.envs = [make.make(spec.builtin_id).unwrapped for _ in range(count)]
        resets = [env.reset(seed=seed * 1000 + i)[0] for i, env in enumerate(self.envs)]
        self.obs = np.stack(resets).astype(np.float32)
        self._limit = spec.max_episode_steps
        self._returns, self._lengths = np.zeros(count), np.zeros(count, int)
        self._finished: list[float] = []

    def step(self, actions: np.ndarray) -> sac.Transitions:
        """Step all environments once; the batch is in numpy."""
        obs, next_obs = self.obs.copy(), np.empty_like(self.obs)
        rewards, terminals = np.empty((2, len(self.envs)), np.float32)
        for i, env in enumerate(self.envs):
            next_obs[i], rewards[i], terminals[i], _, _ = env.step(actions[i])
            self._returns[i] += rewards[i]
            self._lengths[i] += 1
            self.obs[i] = next_obs[i]
            if terminals[i] or self._lengths[i] >= self._limit:
                self._finished = [*self._finished, self._returns[i]][-RECENT:]
                self._returns[i] = self._lengths[i] = 0
                self.obs[i] = env.reset()[0]
        return sac.Transitions(obs, actions, rewards, next_obs, terminals)

    @property
    def recent_return(self) -> float:
        """Mean return of the last finished episodes; zero where there is none."""
        return float(np.mean(self._finished)) if self._finished else 0.0

    def state(self) -> dict[str, np.ndarray]:
        """Read what continuing needs, simulators and their generators included."""
        finished = np.full(RECENT, np.nan)
        finished[: len(self._finished)] = self._finished
        return {
            "physics": np.stack([simulator.physics_state(env) for env in self.envs]),
            "generators": np.stack([simulator.generator_state(e.np_random) for e in self.envs]),
            "obs": self.obs.copy(),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "finished": finished,
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` read."""
        for i, env in enumerate(self.envs):
            simulator.set_physics_state(env, state["physics"][i])
            simulator.set_generator_state(env.np_random, state["generators"][i])
        self.obs, self._returns, self._lengths = (
            np.array(state[k]) for k in ("obs", "returns", "lengths")
        )
        self._finished = [float(x) for x in state["finished"] if not np.isnan(x)]
