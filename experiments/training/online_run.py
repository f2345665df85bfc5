"""One online run: what explores, what learns, and what is written into its folder."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import config_dict

from experiments.runtime import plans, resume
from experiments.training.explorer import Explorer
from mtm_jax.agents import acting, critic_files, finetuner, pretrained
from mtm_jax.agents.actor import Actor
from mtm_jax.io import checkpoint, metrics
from mtm_jax.training import replay

RECENT = 10  # finished episodes whose mean return is shown
SHARE = 1_000  # `updates` is for so many environment steps


class OnlineRun:
    """Explore, remember, learn."""

    def __init__(
        self,
        config: config_dict.ConfigDict,
        folder: pathlib.Path,
        tuner: finetuner.Finetuner,
        explorer: Explorer,
        seed: int,
    ):
        """Put together what `step` drives.

        Args:
            config: of the program.
            folder: of the run.
            tuner: what learns.
            explorer: the environments.
            seed: of all draws that explore.
        """
        self.config, self.folder, self.tuner, self.explorer = config, folder, tuner, explorer
        self._seed = seed
        self.taken = 0  # environment steps
        self._owed = 0  # updates of the model that are due, in parts of 1 / SHARE
        self._recent = np.full(RECENT, np.nan)

    def resume(self) -> None:
        """Continue from the newest checkpoint, or begin."""
        self._writer = metrics.MetricsWriter(self.folder)
        self.checkpoints = checkpoint.Checkpoints(self.folder)
        self._actor = self.make_actor()
        self.explorer.begin(self._actor)
        found = resume.restore(self._state(), self.checkpoints, self.config.use_older)
        self.taken, self._owed = int(found["taken"]), int(found["owed"])
        self._recent = np.asarray(found["recent"])
        tuner = self.tuner
        tuner.state = found["learner"]
        tuner.memories = tuner.memories.replace(episodes=found["episodes"], steps=found["steps"])
        self._actor = self.make_actor()
        for episode in self.explorer.load(found["explorer"], self._actor):
            tuner.add(episode)
        self._writer.truncate(self.taken)

    def step(self) -> None:
        """Take a step in every environment; learn where an episode has ended."""
        finished = self.explorer.step(self._actor)
        self.taken += len(self.explorer.envs)
        if not finished:
            return
        for episode in finished:
            self.tuner.add(episode)
            self._recent = np.append(self._recent[1:], total(episode))
            if self.taken > self.config.learning_after:
                self._owed += episode.length * self.config.updates
        rows = self._learn()
        self._actor = self.make_actor()
        self._writer.write(self.taken, self._row(finished, rows))

    def _learn(self) -> list[dict[str, float]]:
        rows, chunk = [], self.config.chunk
        while self._owed >= chunk * SHARE:
            rows.append(self.tuner.learn(chunk))
            self._owed -= chunk * SHARE
        return rows

    def _row(
        self, finished: Sequence[replay.Episode], rows: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        best, mean = replay.summary(self.tuner.memories.episodes)
        row = {
            "online/return": float(np.mean([total(episode) for episode in finished])),
            "online/length": float(np.mean([episode.length for episode in finished])),
            "online/buffer_best": best,
            "online/buffer_mean": mean,
            "online/updates": float(self.tuner.state.step),
        }
        return row | {k: float(np.mean([r[k] for r in rows])) for k in (rows[0] if rows else ())}

    def make_actor(self) -> Actor:
        """Make what explores of the present agent."""
        method = self.config.explore
        return acting.make_actor(
            *(self.tuner.agent, method),
            plan=plans.of_method(method, self.config),
            target_fraction=self.config.eval.target_fraction,
            seed=self._seed,
            explore=True,
        )

    def recent_return(self) -> float | None:
        """Mean return of the last episodes that explored; None before the first."""
        known = self._recent[~np.isnan(self._recent)]
        return float(known.mean()) if len(known) else None

    def _state(self) -> dict[str, Any]:
        tuner = self.tuner
        return {
            "learner": tuner.state,
            "episodes": tuner.memories.episodes,
            "steps": tuner.memories.steps,
            "explorer": self.explorer.state(),
            "taken": np.int64(self.taken),
            "owed": np.int64(self._owed),
            "recent": self._recent,
        }

    def save(self) -> None:
        """Write a checkpoint of everything, which `mtm_jax.load` takes as a pretrained model."""
        agent = self.tuner.agent
        saved = {"params": agent.params, "stats": agent.stats}
        about = pretrained.describe(agent)
        self.checkpoints.save(self.taken, saved, self._state(), about)

    def save_critic(self) -> None:
        """Write the critic beside the model, where `mtm_jax.load` finds it."""
        critic = self.tuner.agent.require_critic()
        kept = checkpoint.Checkpoints(self.folder / critic_files.FOLDER)
        if critic.step not in kept.steps():
            saved = {"params": critic.params, "stats": critic.stats}
            state = self.tuner.state.critic
            kept.save(critic.step, saved, state, critic_files.describe(critic))


def total(episode: replay.Episode) -> float:
    """Sum the rewards of an episode."""
    return float(np.sum(episode.rewards[: episode.length], dtype=np.float64))
