"""Environments in which a policy explores, with everything that continuing them needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from experiments.runtime import cli
from mtm_jax.agents import finetuner
from mtm_jax.agents.actor import Actor, Memory
from mtm_jax.envs import ongoing
from mtm_jax.errors import UserError
from mtm_jax.training import replay

FAILURES = 3  # episodes in a row that end by an error of the environment


class Explorer:
    """E environments that restart by themselves."""

    def __init__(self, make: Callable[[], gymnasium.Env], count: int, limit: int, seed: int):
        """Make the environments.

        Args:
            make: makes one.
            count: E.
            limit: H, steps of the longest episode.
            seed: the k-th episode is reset with seed + k.
        """
        self.envs = [ongoing.Ongoing(make, limit) for _ in range(count)]
        self._limit, self._seed = limit, seed
        self._begun = self._failures = 0

    def begin(self, actor: Actor) -> None:
        """Begin the first episodes."""
        self.memory = actor.start(np.stack([self._reset(env) for env in self.envs]))

    def step(self, actor: Actor) -> list[replay.Episode]:
        """Take a step in every environment; return the episodes that ended with it.

        Raises:
            UserError: the environments fail again and again, or give what is not finite.
        """
        actions = np.asarray(actor.decide(self.memory))
        outcomes = [env.step(action) for env, action in zip(self.envs, actions, strict=True)]
        obs = np.stack([outcome.obs for outcome in outcomes])
        rewards = np.float32([outcome.reward for outcome in outcomes])
        self.memory = actor.observe(self.memory, actions, rewards, obs)
        over = np.array([outcome.over for outcome in outcomes])
        if not over.any():
            return []
        pairs = zip(self.envs, outcomes, strict=True)
        finished = [self._finish(env, outcome) for env, outcome in pairs if outcome.over]
        self._restart(actor, obs, over)
        return [episode for episode in finished if episode is not None]

    def _finish(self, env: ongoing.Ongoing, outcome: ongoing.Outcome) -> replay.Episode | None:
        """Take the recorded episode; None where it has no step."""
        if outcome.failure:
            self._failures += 1
            cli.say(f"the environment failed ({outcome.failure}): the episode is cut there")
            if self._failures == FAILURES:
                raise UserError(
                    f"{FAILURES} episodes in a row ended by an error of the environment, the last "
                    f"one at step {env.length}: {outcome.failure}; mend it, then the same command "
                    "continues"
                )
        else:
            self._failures = 0
        return recorded(env, outcome.terminal, self._limit)

    def _restart(self, actor: Actor, obs: np.ndarray, over: np.ndarray) -> None:
        """Begin new episodes in the environments whose old ones are over."""
        firsts = obs.copy()
        for e in np.flatnonzero(over):
            firsts[e] = self._reset(self.envs[e])
        fresh = actor.start(firsts).contexts

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(over.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        contexts = jax.tree.map(choose, fresh, self.memory.contexts)
        self.memory = Memory(contexts, self.memory.decisions)

    def _reset(self, env: ongoing.Ongoing) -> np.ndarray:
        self._begun += 1
        return env.reset(self._seed + self._begun - 1)

    def state(self) -> dict[str, Any]:
        """Read what continuing needs, the episodes that are not over included."""
        numbers = {
            "begun": np.int64(self._begun),
            "failures": np.int64(self._failures),
            "decisions": np.int64(self.memory.decisions),
        }
        records = {str(e): env.state() for e, env in enumerate(self.envs)}
        return {"envs": records, "contexts": self.memory.contexts, **numbers}

    def load(self, state: dict[str, Any], actor: Actor) -> list[replay.Episode]:
        """Continue from what `state` read; return episodes that had to be cut."""
        self._begun, self._failures = int(state["begun"]), int(state["failures"])
        self.memory = Memory(state["contexts"], int(state["decisions"]))
        same = np.array([env.load(state["envs"][str(e)]) for e, env in enumerate(self.envs)])
        if same.all():
            return []
        cli.say(
            f"{(~same).sum()} of {len(same)} unfinished episodes did not go the same way when "
            "their actions were played again: they are cut where they were"
        )
        cut = [recorded(env, False, self._limit) for env in np.array(self.envs)[~same]]
        self._restart(actor, np.stack([env.obs[env.length] for env in self.envs]), ~same)
        return [episode for episode in cut if episode is not None]

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


def recorded(env: ongoing.Ongoing, terminal: bool, limit: int) -> replay.Episode | None:
    """Make an episode of what an environment has recorded; None where that is nothing."""
    n = env.length
    if n == 0:
        return None
    arrays = env.obs[:n], env.actions[:n], env.rewards[:n], env.obs[n]
    return finetuner.pad(*arrays, terminal, limit)
