"""Train a ladder of behaviour policies with SAC, from which the built-in data are collected.

Writes an actor every `snapshot_every` environment steps into the run folder. Then
experiments.ladder picks those that are kept. With reward "rnd" the policies explore: they are
rewarded for unfamiliar states, whatever the environment's reward.
The same command continues an interrupted training: every `save_every` environment steps the run
folder gets a checkpoint, and the transitions since the last one (folder replay).
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments.runtime import cli, runs, signals
from experiments.training import behaviour_store, environments, nonfinite
from mtm_jax.config import RNDConfig, SACConfig
from mtm_jax.data.builtin import coverage, shard
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import metrics, progress
from mtm_jax.training import rnd, sac
from mtm_jax.training import trainer as training_lib


class Phase(NamedTuple):
    """How long the environments run between two compiled calls of updates."""

    rounds: int  # of all environments
    steps: int  # of all environments together
    updates: int


def main(config: config_dict.ConfigDict) -> None:
    """Alternate environment steps and updates; write snapshots."""
    check(config)
    spec, _ = registry.split_name(config.env, versions=False)
    trainer = make_trainer(config, spec)
    folder = open_folder(config)
    with runs.only_writer(folder), signals.interruptible() as interrupted:
        runs.settle(folder, runs.to_json(config))
        store = behaviour_store.Store(folder)
        training = store.restore(begin(config, spec, trainer), config.use_older)
        if training.done >= config.total_steps:
            cli.say(f"the run in {folder} is finished")
        guard = nonfinite.Guard(trainer, folder, "updates", examiner(config.sac.batch_size))
        train(config, spec, guard, training, store, folder, interrupted)
    signals.leave(interrupted, training.done)


def check(config: config_dict.ConfigDict) -> None:
    """Refuse settings before the run folder is made.

    Raises:
        UserError: a number is out of range, or coverage would need more than is kept.
    """
    for key in ("save_every", "snapshot_every", "num_envs", "steps_per_phase"):
        if config[key] < 1:
            raise UserError(f"{key} is {config[key]}; it must be at least 1")
    for key in ("seed", "random_steps", "total_steps", "updates_per_step"):
        if not 0 <= config[key] < math.inf:
            raise UserError(f"{key} is {config[key]}; it must be finite and not negative")
    if len(config.sac.hidden) != 2:
        raise UserError(
            f"sac.hidden is {tuple(config.sac.hidden)}; an actor of the built-in data has two "
            "hidden layers, such as (256, 256)"
        )
    if config.replay_capacity < max(
        config.snapshot_every, config.steps_per_phase * config.num_envs
    ):
        raise UserError(
            f"replay_capacity is {config.replay_capacity}; it must be at least snapshot_every, "
            f"{config.snapshot_every}, and what all environments do between two updates"
        )


def begin(
    config: config_dict.ConfigDict, spec: registry.EnvSpec, trainer: training_lib.Trainer
) -> behaviour_store.Training:
    """Start a training at step zero."""
    return behaviour_store.Training(
        learner=trainer.init(jax.random.key(config.seed)),
        replay=sac.empty_replay(config.replay_capacity, spec.obs_dim, spec.action_dim),
        envs=environments.Environments(spec, config.num_envs, config.seed),
        rng=np.random.default_rng(config.seed),
    )


def train(
    config: config_dict.ConfigDict,
    spec: registry.EnvSpec,
    guard: nonfinite.Guard,
    training: behaviour_store.Training,
    store: behaviour_store.Store,
    folder: pathlib.Path,
    interrupted: signals.Interrupted,
) -> None:
    """Run to the last environment step, or until a signal has come."""
    steps = config.steps_per_phase * config.num_envs
    phase = Phase(config.steps_per_phase, steps, round(steps * config.updates_per_step))
    writer, row, saved = metrics.MetricsWriter(folder), {}, training.done
    writer.truncate(saved)
    with progress.progress(config.total_steps, f"SAC on {spec.builtin_id}", start=saved) as bar:
        while training.done < config.total_steps and not interrupted:
            collect(config, training, phase)
            done = training.done
            if done >= config.random_steps:
                training.learner, row = guard.run(training.learner, training.replay, phase.updates)
            recent = training.envs.recent_return
            bar.update(done, f"return {recent:.0f}")
            if done % config.snapshot_every < phase.steps:
                measured = measure(latest(config, training.replay)) if config.coverage else {}
                writer.write(done, row | {"train/return": recent} | measured)
                write_actor(folder / "actors" / f"actor_{done:08d}.npz", training, config.seed)
            if done % config.save_every < phase.steps:
                store.save(training)
                saved = done
    if saved < training.done:
        store.save(training)


def collect(
    config: config_dict.ConfigDict, training: behaviour_store.Training, phase: Phase
) -> None:
    """Step the environments until the next updates.

    Raises:
        UserError: a simulator returned something that is not finite.
    """
    random = training.done < config.random_steps
    layers = None if random else to_numpy(training.learner.actor)
    batch = run_environments(training.envs, layers, phase.rounds, training.rng)
    arrays = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    if not all(np.isfinite(x).all() for x in arrays.values()):
        raise UserError(
            f"the simulators went wrong after step {training.done}: {nonfinite.bad_rows(arrays)}; "
            "the last checkpoint is from before"
        )
    training.replay = sac.insert(training.replay, jax.tree.map(jnp.asarray, batch))
    training.done += phase.steps


def make_trainer(config: config_dict.ConfigDict, spec: registry.EnvSpec) -> training_lib.Trainer:
    """Build SAC on the reward that the configuration names."""
    total = round(config.total_steps * config.updates_per_step)
    settings = SACConfig(total_updates=total, **config.sac)
    if config.reward == "environment":
        return sac.make_trainer(settings, spec.obs_dim, spec.action_dim)
    if config.reward == "rnd":
        return rnd.make_trainer(settings, RNDConfig(**config.rnd), spec.obs_dim, spec.action_dim)
    raise UserError(f"unknown reward {config.reward!r}; choose environment or rnd")


def open_folder(config: config_dict.ConfigDict) -> pathlib.Path:
    """Create the run folder, or continue in it.

    Raises:
        UserError: it holds a different run, or actors without a checkpoint.
    """
    folder = pathlib.Path(config.out or f"runs/behaviours/{config.name}-seed{config.seed}")
    saved = any((folder / "checkpoints").glob("*"))
    if any((folder / "actors").glob("*.npz")) and not saved:
        raise UserError(
            f"{folder} holds actors and no checkpoint to continue from; choose another folder "
            "with --config.out, or delete it"
        )
    runs.open_run(folder, runs.to_json(config))
    (folder / "actors").mkdir(exist_ok=True)
    return folder


def examiner(batch_size: int) -> Callable[[rnd.RNDState | sac.SACState, sac.Replay], Any]:
    """Build what draws the transitions of an update and says which of them are not finite."""

    def examine(state: rnd.RNDState | sac.SACState, replay: sac.Replay) -> nonfinite.Examined:
        inner = getattr(state, "sac", state)
        key = jax.random.split(jax.random.fold_in(inner.key, inner.step), 3)[0]
        batch = sac.sample(key, replay, batch_size)
        arrays = {f.name: np.asarray(getattr(batch, f.name)) for f in dataclasses.fields(batch)}
        return nonfinite.Examined(nonfinite.bad_rows(arrays), arrays)

    return examine


def latest(config: config_dict.ConfigDict, replay: sac.Replay) -> np.ndarray:
    """Read the observations since the last snapshot, oldest first."""
    steps = config.steps_per_phase * config.num_envs
    inserted = int(replay.inserted)
    count = min(max(config.snapshot_every // steps, 1) * steps, inserted)
    slots = np.arange(inserted - count, inserted) % replay.ring.obs.shape[0]
    return np.asarray(replay.ring.obs)[slots]


def measure(observations: np.ndarray) -> dict[str, float]:
    """Measure the state coverage of recent observations."""
    return {
        "coverage/cells": coverage.occupied(observations),
        "coverage/entropy": coverage.particle_entropy(observations),
    }


def run_environments(
    envs: environments.Environments,
    layers: shard.Layers | None,
    rounds: int,
    rng: np.random.Generator,
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


def write_actor(path: pathlib.Path, training: behaviour_store.Training, seed: int) -> None:
    """Store the averaged actor with the environment step and the seed of its training."""
    arrays = {}
    for k, (kernel, bias) in enumerate(to_numpy(training.learner.actor_average)):
        arrays |= {f"layer_{k}/kernel": kernel, f"layer_{k}/bias": bias}
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        np.savez(file, step=training.done, seed=seed, **arrays)
    temporary.replace(path)


if __name__ == "__main__":
    cli.run(main)
