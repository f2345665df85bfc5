"""Finetuning an agent on what it does: one object that remembers episodes and learns from them.

tuner = mtm_jax.Finetuner(mtm_jax.load(RUN), data)
actor = mtm_jax.make_actor(tuner.agent, "m3pc_q", explore=True)
...                       # act for an episode in an environment of your own
tuner.add(episode)        # a mtm_jax.Episode
metrics = tuner.learn(20)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtm_jax.agents import critic_files
from mtm_jax.agents.pretrained import Pretrained, ReturnSummary
from mtm_jax.config import FinetuneConfig, OptimConfig, PretrainConfig
from mtm_jax.errors import UserError
from mtm_jax.training import dataset, finetune, iql, pretrain, program, replay


def default_config(agent: Pretrained) -> FinetuneConfig:
    """Give the papers' settings for an agent: M3PC table 4."""
    optim = OptimConfig(warmup_steps=0, total_steps=1, schedule="constant")
    model = PretrainConfig(agent.model.config, optim=optim, batch_size=512)
    return FinetuneConfig(model, agent.require_critic().config)


class Finetuner:
    """A pretrained agent that goes on learning.

    Attributes:
        agent: as it is now: parameters, critic, and the returns of the episodes in its buffer,
            which are those that it asks for.
        state: of the learner.
        memories: what it learns from.
    """

    def __init__(
        self,
        agent: Pretrained,
        data: dataset.Dataset,
        config: FinetuneConfig | None = None,
        critic_state: iql.IQLState | None = None,
        episodes: int = 1000,
        steps: int = 1_000_000,
        seed: int = 0,
    ):
        """Fill the buffer with the best episodes of the data.

        Args:
            agent: with a critic.
            data: of its pretraining, on the device.
            config: settings; by default `default_config`.
            critic_state: to train on; by default that of the agent's run.
            episodes: capacity of the buffer that the model learns from.
            steps: capacity of the buffer of online transitions.
            seed: of all draws.

        Raises:
            UserError: the agent has no critic, a capacity is too small, or the data lack actions
                or rewards.
        """
        critic = agent.require_critic()
        if critic_state is None:
            critic_state = critic_files.load_state(agent.run, critic)
        self.config = default_config(agent) if config is None else config
        limit = agent.info.max_episode_steps
        dims = (data.values[m].shape[1] for m in ("states", "actions"))
        self.memories = finetune.Memories(
            episodes=replay.best_episodes(data, episodes, limit),
            steps=replay.empty_steps(steps, limit, *dims),
            offline=data,
        )
        training = finetune.make_training(self.config, agent.model, agent.stats)
        self._program = program.make_program(training)
        fresh = self._program.init(jax.random.key(seed))
        self.state = finetune.begin(fresh, agent.params, critic_state)
        self._given = agent

    @property
    def agent(self) -> Pretrained:
        """The agent as it is now."""
        state, given = self.state, self._given
        best, mean = replay.summary(self.memories.episodes)
        config, stats = self.config.critic, given.critic.stats
        # Copies: the next call of `learn` writes where these lie.
        params, critic = jax.tree.map(
            jnp.copy,
            (pretrain.acting(state.model), iql.raw_params(state.critic, config)),
        )
        return dataclasses.replace(
            given,
            params=params,
            critic=iql.Critic(config, critic, stats, int(state.critic.step)),
            returns=ReturnSummary(best, mean),
            step=int(state.step),
        )

    def add(self, episode: replay.Episode) -> None:
        """Remember a finished episode.

        Raises:
            UserError: its arrays have other shapes than those of the buffer, or it has no steps.
        """
        kept = self.memories
        self._check(episode)
        episodes, steps = finetune.remember(kept.episodes, kept.steps, episode)
        self.memories = kept.replace(episodes=episodes, steps=steps)

    def learn(self, updates: int) -> dict[str, float]:
        """Update the model so many times, and the critic accordingly; return mean metrics.

        Every other number of updates compiles a program of its own.

        Raises:
            UserError: something is not finite any more.
        """
        self.state, metrics = self._program.run(self.state, self.memories, updates)
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not all(np.isfinite(list(row.values()))) or not row.pop(program.FINITE):
            bad = [f"{name} is {value}" for name, value in row.items() if not np.isfinite(value)]
            raise UserError(
                f"finetuning went wrong before update {int(self.state.step)}: "
                f"{', '.join(bad) or 'the state is not finite'}; try a lower learning rate"
            )
        return row

    def _check(self, episode: replay.Episode) -> None:
        places = self.memories.episodes.values
        limit = places["rewards"].shape[1]
        shapes = {"obs": places["states"].shape[1:], "actions": places["actions"].shape[1:]}
        shapes |= {"rewards": (limit,), "final_obs": places["states"].shape[2:]}
        for name, shape in shapes.items():
            if np.shape(getattr(episode, name)) != shape:
                raise UserError(
                    f"{name} of the episode has the shape {np.shape(getattr(episode, name))}; "
                    f"it must be {shape}, padded to the time limit"
                )
        if not 1 <= episode.length <= limit:
            raise UserError(f"the episode has {episode.length} steps; it must have 1 to {limit}")


def pad(
    obs: Any, actions: Any, rewards: Any, final_obs: Any, terminal: bool, limit: int
) -> replay.Episode:
    """Make a finished episode of arrays of its length.

    Args:
        obs: [n, S] raw.
        actions: [n, A] in [-1, 1].
        rewards: [n].
        final_obs: [S], after the last step.
        terminal: the environment itself ended it, not its time limit.
        limit: H.
    """

    def widen(x: Any) -> np.ndarray:
        x = np.asarray(x, np.float32)
        return np.concatenate([x, np.zeros((limit - len(x), *x.shape[1:]), np.float32)])

    final = np.asarray(final_obs, np.float32)
    length = len(np.asarray(rewards))
    if length > limit:
        raise UserError(f"the episode has {length} steps, more than the time limit of {limit}")
    return replay.Episode(widen(obs), widen(actions), widen(rewards), final, length, bool(terminal))
