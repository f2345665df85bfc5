"""Checkpoints of a behaviour training: learner, replay buffer, environments and generators.

A save writes the transitions that are new since the last one, not the whole buffer again.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.runtime import resume
from experiments.training import environments
from mtm_jax.envs import simulator
from mtm_jax.io import checkpoint, shards
from mtm_jax.training import rnd, sac

REPLAY_FOLDER = "replay"


@dataclasses.dataclass
class Training:
    """A training in progress; every environment step has inserted one transition."""

    learner: sac.SACState | rnd.RNDState
    replay: sac.Replay
    envs: environments.Environments
    rng: np.random.Generator  # of the actions
    done: int = 0  # environment steps


class Store:
    """The checkpoints of one run folder."""

    def __init__(self, folder: pathlib.Path):
        self._checkpoints = checkpoint.Checkpoints(folder)
        self._shards = shards.Shards(folder / REPLAY_FOLDER)
        self._entries: list[shards.Entry] = []  # of the newest checkpoint

    def save(self, training: Training) -> None:
        """Write a checkpoint.

        Raises:
            UserError: the file system refuses.
        """
        stop, capacity = training.done, training.replay.ring.rewards.shape[0]
        start = max(self._entries[-1]["stop"] if self._entries else 0, stop - capacity)
        entries = self._entries
        if stop > start:
            entries = [*entries, self._shards.write(start, _rows(training.replay, start, stop))]
        entries = [entry for entry in entries if entry["stop"] > stop - capacity]
        model = {"actor": training.learner.actor_average}
        self._checkpoints.save(stop, model, _state(training), {REPLAY_FOLDER: entries})
        self._keep(entries)

    def restore(self, training: Training, use_older: bool = False) -> Training:
        """Continue from the newest checkpoint; a training without one is saved as it begins.

        Raises:
            UserError: it is damaged, or of another training.
        """

        def read(step: int) -> tuple[int, list[shards.Entry], dict, dict]:
            entries = self._checkpoints.restore_meta(step)[REPLAY_FOLDER]
            state = self._checkpoints.restore_train(step, _state(training))
            first = max(step - training.replay.ring.rewards.shape[0], 0)
            return step, entries, state, self._shards.read(entries, first)

        found = self._checkpoints.newest(read, use_older)
        if found is None:
            self.save(training)  # an actor without a checkpoint is another program's
            return training
        step, entries, state, rows = found
        resume.say_continuing(self._checkpoints, step)
        training.envs.load(state["envs"])
        simulator.set_generator_state(training.rng, state["rng"])
        replay = _refill(training.replay, rows, step)
        self._keep(entries)
        return dataclasses.replace(training, learner=state["learner"], replay=replay, done=step)

    def _keep(self, entries: list[shards.Entry]) -> None:
        """Remove the shards that no checkpoint lists."""
        self._entries, listed = entries, list(entries)
        for step in self._checkpoints.steps():
            try:
                listed += self._checkpoints.restore_meta(step)[REPLAY_FOLDER]
            except checkpoint.Damaged:  # nobody can read what it lists
                continue
        self._shards.keep(listed)


def _state(training: Training) -> dict[str, Any]:
    return {
        "learner": training.learner,
        "envs": training.envs.state(),
        "rng": simulator.generator_state(training.rng),
    }


def _rows(replay: sac.Replay, start: int, stop: int) -> dict[str, np.ndarray]:
    """Read the transitions `start` to `stop`, counted from the first ever inserted."""
    slots = np.arange(start, stop) % replay.ring.rewards.shape[0]
    return {
        f.name: np.asarray(getattr(replay.ring, f.name))[slots]
        for f in dataclasses.fields(replay.ring)
    }


def _refill(empty: sac.Replay, rows: dict[str, np.ndarray], stop: int) -> sac.Replay:
    """Put the transitions before `stop` where they were."""
    ring = {f.name: np.array(getattr(empty.ring, f.name)) for f in dataclasses.fields(empty.ring)}
    capacity = len(ring["rewards"])
    for name, values in rows.items():
        ring[name][np.arange(stop - len(values), stop) % capacity] = values
    return sac.Replay(jax.tree.map(jnp.asarray, sac.Transitions(**ring)), jnp.int32(stop))
