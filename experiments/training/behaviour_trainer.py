"""Trains one behaviour policy: environments and updates take turns, steps are environment steps."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments.runtime import cli, runs
from experiments.training import behaviour_store, environments, nonfinite
from experiments.training.loop import Row
from mtm_jax.data.builtin import coverage, shard
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import metrics
from mtm_jax.training import program, rnd, sac


class BehaviourTrainer:
    """The trainer of one run folder; see `loop.Trainer`."""

    def __init__(
        self,
        config: config_dict.ConfigDict,
        spec: registry.EnvSpec,
        training: program.Training,
        folder: pathlib.Path,
    ):
        """Build the program of the updates, which compiles when it is first called."""
        self._config, self._spec, self._folder = config, spec, folder
        self._init = program.make_program(training).init
        examine = examiner(config.sac.batch_size)
        self._program = nonfinite.GuardedProgram(
            [nonfinite.Guard(training, folder, "updates", examine)]
        )
        self._row: Row = {}  # of the latest updates

    @property
    def step(self) -> int:
        """Environment steps done."""
        return self._training.done

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the folder against other processes."""
        with runs.only_writer(self._folder):
            runs.settle(self._folder, runs.to_json(self._config))
            yield

    def resume(self) -> None:
        """Continue from the newest checkpoint, or begin."""
        config, spec = self._config, self._spec
        fresh = behaviour_store.Training(
            learner=self._init(jax.random.key(config.seed)),
            replay=sac.empty_replay(config.replay_capacity, spec.obs_dim, spec.action_dim),
            envs=environments.Environments(spec, config.num_envs, config.seed),
            rng=np.random.default_rng(config.seed),
        )
        self._store = behaviour_store.Store(self._folder)
        self._training = self._store.restore(fresh, config.use_older)
        self._writer = metrics.MetricsWriter(self._folder)
        self._writer.truncate(self.step)
        if self.step >= config.total_steps:
            cli.say(f"the run in {self._folder} is finished")

    def run(self, length: int) -> list[Row]:
        """Step the environments, then update."""
        config, training = self._config, self._training
        collect(training, length, self.step < config.random_steps)
        if self.step >= config.random_steps:
            updates = round(length * config.updates_per_step)
            learners = program.stack([training.learner])
            learners, (self._row,) = self._program.run(learners, training.replay, updates)
            training.learner = nonfinite.member(learners, 0)
        return [self._row | {"train/return": training.envs.recent_return}]

    def validate(self) -> list[Row]:
        """Measure the state coverage since the last snapshot."""
        observations = latest(self._training.replay, snapshot_steps(self._config))
        return [
            {
                "coverage/cells": coverage.occupied(observations),
                "coverage/entropy": coverage.particle_entropy(observations),
            }
        ]

    def log(self, rows: Sequence[Row]) -> None:
        """Store the metrics and the actor of a snapshot."""
        self._writer.write(self.step, rows[0])
        path = self._folder / "actors" / f"actor_{self.step:08d}.npz"
        write_actor(path, self._training, self._config.seed)

    def save(self, rows: Sequence[Row] | None) -> None:
        """Write a checkpoint."""
        self._store.save(self._training)

    def summary(self, rows: Sequence[Row]) -> str:
        """Give the mean return of the last episodes."""
        return f"return {rows[0]['train/return']:.0f}"


def steps_per_call(config: config_dict.ConfigDict) -> int:
    """Count the environment steps, of all environments, between two phases of updates."""
    return config.steps_per_phase * config.num_envs


def snapshot_steps(config: config_dict.ConfigDict) -> int:
    """Count the environment steps between two snapshots: whole phases."""
    return max(config.snapshot_every // steps_per_call(config), 1) * steps_per_call(config)


def collect(training: behaviour_store.Training, steps: int, random: bool) -> None:
    """Step the environments, by uniform actions or by the actor, into the replay buffer.

    Raises:
        UserError: a simulator returned something that is not finite.
    """
    layers = None if random else to_numpy(training.learner.actor)
    rounds = steps // len(training.envs.envs)
    batch = run_environments(training.envs, layers, rounds, training.rng)
    arrays = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    if not all(np.isfinite(x).all() for x in arrays.values()):
        raise UserError(
            f"the simulators went wrong after step {training.done}: {nonfinite.bad_rows(arrays)}; "
            "the last checkpoint is from before"
        )
    training.replay = sac.insert(training.replay, jax.tree.map(jnp.asarray, batch))
    training.done += steps


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


def latest(replay: sac.Replay, steps: int) -> np.ndarray:
    """Read the observations of the latest steps, oldest first."""
    inserted = int(replay.inserted)
    slots = np.arange(inserted - min(steps, inserted), inserted) % replay.ring.obs.shape[0]
    return np.asarray(replay.ring.obs)[slots]


def examiner(batch_size: int) -> Callable[[rnd.RNDState | sac.SACState, sac.Replay], Any]:
    """Build what draws the transitions of an update and says which of them are not finite."""

    def examine(state: rnd.RNDState | sac.SACState, replay: sac.Replay) -> nonfinite.Examined:
        key = sac.step_keys(getattr(state, "sac", state))[0]
        batch = sac.sample(key, replay, batch_size)
        return nonfinite.examine_rows(batch)

    return examine


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
