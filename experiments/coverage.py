"""Compare what random actions and the explorer's ladder reach of ExORL's walker.

Each source acts for the same number of steps. A row says how many cells of a grid the states
occupy, their particle entropy, and the mean and best reward of each task in them.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from experiments.runtime import cli
from mtm_jax.data.builtin import coverage, ladders, shard
from mtm_jax.envs import make, registry, walker_tasks
from mtm_jax.errors import UserError
from mtm_jax.io import progress, records

SPEC = registry.ENVS["walker_run"]


class States(NamedTuple):
    """States after each of n steps."""

    observations: np.ndarray  # [n, 24] float32
    physics: np.ndarray  # [n, 18] float64


def main(config: config_dict.ConfigDict) -> None:
    """Act, measure, append rows."""
    for key in ("steps", "num_envs"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    if config.seed < 0:
        raise UserError(f"seed is {config.seed}; it must not be negative")
    folder = pathlib.Path(config.actors or ladders.folder_of(SPEC))
    (section,) = ladders.plan(ladders.load(folder, SPEC), "explore", config.steps)
    plans = {
        "random": [(None, config.steps)],
        "explorer": [(shard.load_actor(actor.path), steps) for actor, steps in section.quotas],
    }
    envs = [make.make(SPEC.builtin_id).unwrapped for _ in range(config.num_envs)]
    for source, plan in plans.items():
        rng = np.random.default_rng(config.seed)
        for env in envs:
            env.np_random = rng
        with progress.progress(config.steps, source) as bar:
            states = act(envs, plan, rng, bar.update)
        row = {"source": source, "steps": config.steps, "seed": config.seed} | measure(states)
        records.append(pathlib.Path(config.out), row | versions())
        cli.say(f"{source}: {row['cells']} cells, entropy {row['entropy']:.2f}")


def act(
    envs: list,
    plan: list[tuple[shard.Layers | None, int]],
    rng: np.random.Generator,
    report: Callable[[int], None],
) -> States:
    """Let each actor, None = uniform actions, act for its steps, in episodes that start anew."""
    parts: list[States] = []
    done = 0
    for layers, steps in plan:
        end = done + steps
        while done < end:
            episodes = min(len(envs), -(-(end - done) // SPEC.max_episode_steps))
            states = run_episodes(envs[:episodes], layers, rng)
            parts.append(States(*(array[: end - done] for array in states)))
            done += len(parts[-1].physics)
            report(done)
    return States(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def run_episodes(envs: list, layers: shard.Layers | None, rng: np.random.Generator) -> States:
    """One episode in each environment, stored end to end."""
    shape = (len(envs), SPEC.action_dim)
    obs = np.stack([env.reset()[0] for env in envs]).astype(np.float32)
    observations, physics = [], []
    for _ in range(SPEC.max_episode_steps):
        if layers is None:
            actions = rng.uniform(-1.0, 1.0, shape)
        else:
            actions = shard.act(layers, obs, rng.standard_normal(shape, np.float32))
        obs = np.stack([env.step(a)[0] for env, a in zip(envs, actions, strict=True)])
        obs = obs.astype(np.float32)
        observations.append(obs)
        physics.append([env.physics_state() for env in envs])
    return States(
        np.swapaxes(observations, 0, 1).reshape(-1, walker_tasks.OBS_DIM),
        np.swapaxes(physics, 0, 1).reshape(-1, walker_tasks.STATE_DIM),
    )


def measure(states: States) -> dict[str, float]:
    """Coverage of the states, and the rewards that they hold for each task."""
    row = {
        "cells": coverage.occupied(states.observations),
        "entropy": coverage.particle_entropy(states.observations),
    }
    for task, rewards in walker_tasks.all_rewards(states.physics).items():
        row |= {f"{task}/mean": float(rewards.mean()), f"{task}/max": float(rewards.max())}
    return row


def versions() -> dict[str, str]:
    """The simulator's versions."""
    return {name: importlib.metadata.version(name) for name in ("mujoco", "dm_control")}


if __name__ == "__main__":
    cli.run(main)
