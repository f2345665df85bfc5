"""The critic of one pretraining run: where it lies, what it continues from, what is written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

from ml_collections import config_dict

from experiments.runtime import resume, runs
from experiments.training import build
from mtm_jax import tokens
from mtm_jax.agents import critic_files
from mtm_jax.config import CriticConfig
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, metrics
from mtm_jax.training import iql


class CriticRun:
    """One critic of a program."""

    def __init__(self, run_folder: pathlib.Path):
        """Read the configuration of the run.

        Raises:
            UserError: nothing can be written into the run's folder.
        """
        if not os.access(run_folder, os.W_OK | os.X_OK):
            raise UserError(f"{run_folder} is read-only, but the critic goes into it; copy the run")
        self.pretraining = config_dict.ConfigDict(runs.read_config(run_folder))
        self.seed = self.pretraining.seed
        self.folder = run_folder / critic_files.FOLDER

    def prepare(self, settings: CriticConfig, data: build.Data, use_older: bool) -> None:
        """Say what is trained, on what, and whether damaged checkpoints are skipped."""
        self.settings, self._stats, self._use_older = settings, data.stats["states"], use_older

    def stored_steps(self) -> int:
        """Count the updates of the critic that the run has; it must be of the same settings.

        Raises:
            UserError: its settings are others, or it is damaged.
        """
        if not (self.folder / "checkpoints").is_dir():
            return 0
        found = checkpoint.Checkpoints(self.folder, read_only=True)
        return found.newest(lambda step: check_same(found, step, self.settings)) or 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the folder against other processes."""
        self.folder.mkdir(exist_ok=True)
        with runs.only_writer(self.folder):
            self._writer = metrics.MetricsWriter(self.folder)
            yield

    def open_checkpoints(self) -> checkpoint.Checkpoints:
        """Open the checkpoints of the critic, and return them."""
        self.checkpoints = checkpoint.Checkpoints(self.folder)
        return self.checkpoints

    def restore(self, fresh: iql.IQLState, step: int | None) -> iql.IQLState:
        """Continue from the checkpoint of a step, by default the newest; see `resume.restore`."""
        same = functools.partial(
            check_same, self.checkpoints, settings=self.settings, stats=self._stats
        )
        return resume.restore(fresh, self.checkpoints, self._use_older, same, step)

    def begin_log(self, step: int) -> None:
        """Drop the metrics after an update, which is repeated."""
        self._writer.truncate(step)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Store the metrics of an update."""
        self._writer.write(step, row)

    def save(self, state: iql.IQLState, row: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint; critics are not scored by their metrics."""
        params = iql.raw_params(state, self.settings)
        critic = iql.Critic(self.settings, params, self._stats, int(state.step))
        saved = {"params": critic.params, "stats": self._stats}
        self.checkpoints.save(critic.step, saved, state, critic_files.describe(critic))


def check_same(
    checkpoints: checkpoint.Checkpoints,
    step: int,
    settings: CriticConfig,
    stats: tokens.Stats | None = None,
) -> int:
    """Hold a critic to its settings and, where they are known, the statistics of its data.

    Returns:
        its step.

    Raises:
        UserError: they differ; it lists in what, with both values.
    """
    meta, saved = checkpoints.restore_meta(step), checkpoints.restore_model(step)
    if "critic_config" not in meta:
        raise UserError(f"{checkpoints.folder} holds checkpoints of no critic; choose another run")
    new = json.loads(json.dumps(dataclasses.asdict(settings)))
    differ = runs.differences(meta["critic_config"], new)
    if not settings.policy:
        differ.pop("total_steps", None)  # only the policy's learning rate depends on it
    found = list(differ.values())
    if stats is not None:
        found += resume.stats_differences("stats.states", tokens.Stats(**saved["stats"]), stats)
    if found:
        raise UserError(
            f"the critic in {checkpoints.folder.parent} is another one: {'; '.join(found)}; "
            "delete that folder to train another"
        )
    return step
