"""An environment whose present episode is recorded, so that it can be left and taken up again.

What an episode has been is known by the seed of its reset and its actions: a simulator that is
deterministic is brought back by playing these again, whatever it keeps inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import numpy as np

from mtm_jax.errors import UserError


class Outcome(NamedTuple):
    """What a step led to."""

    obs: np.ndarray  # [S] float32
    reward: float
    terminal: bool  # the environment itself ended the episode
    over: bool  # it, the time limit or a failure did
    failure: str = ""  # what the environment raised; the step is then not part of the episode


class Ongoing:
    """One environment with the record of its present episode."""

    def __init__(self, make: Callable[[], gymnasium.Env], limit: int):
        """Make the environment.

        Args:
            make: makes it, again after it has failed.
            limit: H, steps of the longest episode.
        """
        self._make, self._limit, self._env = make, limit, make()
        space = self._env.action_space
        self.low, self.high = space.low, space.high
        rows = limit, self._env.observation_space.shape[0]
        self.obs = np.zeros((limit + 1, rows[1]), np.float32)  # of all steps, and what followed
        self.actions = np.zeros((limit, space.shape[0]), np.float32)  # in [-1, 1]
        self.rewards = np.zeros(limit, np.float32)
        self.length, self.seed = 0, 0

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode; return its first observation."""
        self.seed, self.length = seed, 0
        self.obs[0] = self._env.reset(seed=seed)[0]
        return self.obs[0]

    def step(self, action: np.ndarray) -> Outcome:
        """Take a step and record it.

        Args:
            action: [A] in [-1, 1].

        Raises:
            UserError: a reward or an observation is not finite.
        """
        raw = self.low + 0.5 * (np.asarray(action) + 1.0) * (self.high - self.low)
        try:
            found = self._env.step(raw.astype(self.low.dtype))
        except Exception as error:  # whatever somebody's simulator raises
            self._env = self._make()
            text = f"{type(error).__name__}: {error}"
            return Outcome(self.obs[self.length], 0.0, False, True, text)
        obs, reward, terminated, truncated, _ = found
        if not (np.isfinite(reward) and np.isfinite(obs).all()):
            raise UserError(
                f"step {self.length} of the episode with seed {self.seed} gave the reward {reward} "
                f"and an observation from {np.min(obs)} to {np.max(obs)}; both must be finite"
            )
        n = self.length
        self.actions[n], self.rewards[n], self.obs[n + 1] = action, reward, obs
        self.length += 1
        over = bool(terminated or truncated or self.length == self._limit)
        return Outcome(self.obs[n + 1], float(reward), bool(terminated), over)

    def state(self) -> dict[str, np.ndarray]:
        """Read what continuing needs; arrays of fixed shapes."""
        kept = {"obs": self.obs, "actions": self.actions, "rewards": self.rewards}
        numbers = {"length": np.int64(self.length), "seed": np.int64(self.seed)}
        return {k: v.copy() for k, v in kept.items()} | numbers

    def load(self, state: dict[str, np.ndarray]) -> bool:
        """Play the steps of `state` again; return whether they led where they had led.

        If not, the record is that of `state`, and the environment is where it cannot go on.
        """
        length = int(state["length"])
        same = np.array_equal(self.reset(int(state["seed"])), state["obs"][0])
        for n in range(length if same else 0):
            outcome = self.step(state["actions"][n])
            ended = outcome.over and n + 1 < length
            same = same and not ended and not outcome.failure
            same = same and np.array_equal(self.obs[n + 1], state["obs"][n + 1])
            if not same:
                break
        self.length = length
        for name in ("obs", "actions", "rewards"):
            getattr(self, name)[:] = state[name]
        return bool(same)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
