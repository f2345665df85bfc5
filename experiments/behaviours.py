"""Train a ladder of behaviour policies with SAC, from which the built-in data are collected.

Writes an actor every `snapshot_every` environment steps into the run folder. Then
experiments.ladder picks those that are kept. With reward "rnd" the policies explore: they are
rewarded for unfamiliar states, whatever the environment's reward.
"""

from __future__ import annotations

import collections
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import cli, runs
from mtm_jax import metrics, progress, rnd, sac, training
from mtm_jax.config import RNDConfig, SACConfig
from mtm_jax.data import coverage, shard
from mtm_jax.envs import make, registry
from mtm_jax.errors import UserError


class Environments:
    """Environments that restart by themselves, with the returns of finished episodes."""

    def __init__(self, spec: registry.EnvSpec, count: int, seed: int):
        self.envs = [make.make(spec.builtin_id).unwrapped for _ in range(count)]
        resets = [env.reset(seed=seed * 1000 + i)[0] for i, env in enumerate(self.envs)]
        self.obs = np.stack(resets).astype(np.float32)
        self._limit = spec.max_episode_steps
        self._returns, self._lengths = np.zeros(count), np.zeros(count, int)
        self.finished: list[float] = []

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
                self.finished.append(self._returns[i])
                self._returns[i] = self._lengths[i] = 0
                self.obs[i] = env.reset()[0]
        return sac.Transitions(obs, actions, rewards, next_obs, terminals)


class Phase(NamedTuple):
    """How long the environments run between two compiled calls of updates."""

    rounds: int  # of all environments
    steps: int  # of all environments together
    updates: int


def main(config: config_dict.ConfigDict) -> None:
    """Alternate environment steps and updates; write snapshots."""
    spec = registry.ENVS[config.env]
    trainer = make_trainer(config, spec)
    folder = open_folder(config)
    steps = config.steps_per_phase * config.num_envs
    phase = Phase(config.steps_per_phase, steps, round(steps * config.updates_per_step))
    state = trainer.init(jax.random.key(config.seed))
    replay = sac.empty_replay(config.replay_capacity, spec.obs_dim, spec.action_dim)
    envs = Environments(spec, config.num_envs, config.seed)
    rng = np.random.default_rng(config.seed)
    writer = metrics.MetricsWriter(folder)
    seen = collections.deque(maxlen=max(config.snapshot_every // steps, 1))
    done, row = 0, {}
    with progress.progress(config.total_steps, f"SAC on {spec.builtin_id}") as bar:
        while done < config.total_steps:
            layers = None if done < config.random_steps else to_numpy(state.actor)
            batch = run_environments(envs, layers, phase.rounds, rng)
            seen.append(batch.obs)
            replay = sac.insert(replay, jax.tree.map(jnp.asarray, batch))
            done += phase.steps
            if done >= config.random_steps:
                state, row = trainer.run(state, replay, phase.updates)
            recent = float(np.mean(envs.finished[-20:])) if envs.finished else 0.0
            bar.update(done, f"return {recent:.0f}")
            if done % config.snapshot_every < phase.steps:
                measured = measure(np.concatenate(seen)) if config.coverage else {}
                writer.write(done, jax.device_get(row) | {"train/return": recent} | measured)
                write_actor(folder / "actors" / f"actor_{done:08d}.npz", state, done, config.seed)


def make_trainer(config: config_dict.ConfigDict, spec: registry.EnvSpec) -> training.Trainer:
    """Build SAC on the reward that the configuration names."""
    total = round(config.total_steps * config.updates_per_step)
    settings = SACConfig(total_updates=total, **config.sac)
    if config.reward == "environment":
        return sac.make_trainer(settings, spec.obs_dim, spec.action_dim)
    if config.reward == "rnd":
        return rnd.make_trainer(settings, RNDConfig(**config.rnd), spec.obs_dim, spec.action_dim)
    raise UserError(f"unknown reward {config.reward!r}; choose environment or rnd")


def open_folder(config: config_dict.ConfigDict) -> pathlib.Path:
    """Create the run folder, which must not hold actors yet."""
    folder = pathlib.Path(config.out or f"runs/behaviours/{config.name}-seed{config.seed}")
    if any((folder / "actors").glob("*.npz")):
        raise UserError(
            f"{folder} holds actors already; choose another folder with --config.out, or delete it"
        )
    runs.open_run(folder, runs.to_json(config))
    (folder / "actors").mkdir(exist_ok=True)
    return folder


def measure(observations: np.ndarray) -> dict[str, float]:
    """Measure the state coverage of recent observations."""
    return {
        "coverage/cells": coverage.occupied(observations),
        "coverage/entropy": coverage.particle_entropy(observations),
    }


def run_environments(
    envs: Environments, layers: shard.Layers | None, rounds: int, rng: np.random.Generator
) -> sac.Transitions:
    """Step all environments `rounds` times, with uniform actions where there is no actor yet.

    The batch is in numpy.
    """
    batches = []
    shape = (len(envs.envs), envs.envs[0].action_space.shape[0])
    for _ in range(rounds):
        if layers is None:
            actions = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
        else:
            actions = shard.act(layers, envs.obs, rng.standard_normal(shape, np.float32))
        batches.append(envs.step(actions))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)


def to_numpy(actor: dict) -> shard.Layers:
    """Convert actor parameters to what the collectors use."""
    layers = [actor["mlp"][f"layer_{k}"] for k in range(3)]
    return tuple((np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in layers)


def write_actor(
    path: pathlib.Path, state: sac.SACState | rnd.RNDState, step: int, seed: int
) -> None:
    """Store the averaged actor with the environment step and the seed of its training."""
    arrays = {}
    for k, (kernel, bias) in enumerate(to_numpy(state.actor_average)):
        arrays |= {f"layer_{k}/kernel": kernel, f"layer_{k}/bias": bias}
    np.savez(path, step=step, seed=seed, **arrays)


if __name__ == "__main__":
    cli.run(main)
