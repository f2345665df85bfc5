"""One run of TD3: its folder, what it continues from, and what is written into it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from experiments.runtime import resume, runs
from experiments.training import build, run_configs
from mtm_jax import tokens
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, metrics, records, results
from mtm_jax.training import td3


def expand(config: config_dict.ConfigDict) -> list[config_dict.ConfigDict]:
    """List the configurations of the runs of `seeds` seeds, each with its folder in `out`.

    Raises:
        UserError: `seeds` is out of range.
    """
    if not 1 <= config.seeds <= run_configs.MAX_SEEDS:
        raise UserError(f"seeds is {config.seeds}; give a number from 1 to {run_configs.MAX_SEEDS}")
    found = []
    for seed in range(config.seed, config.seed + config.seeds):
        run = config.copy_and_resolve_references()
        with run.unlocked():
            del run["seeds"]
        run.seed = seed
        if config.out and config.seeds > 1:
            run.out = str(pathlib.Path(config.out) / f"seed{seed}")
        run.out = run.out or str(default_out(run))
        found.append(run)
    return found


def default_out(config: config_dict.ConfigDict) -> pathlib.Path:
    """Name the run folder after what is run."""
    name = build.default_out(config).name  # <data set>-<variant>-<preset>-seed<seed>
    if config.features.run:
        tuned = "finetuned" if config.features.finetuned else "frozen"
        source = pathlib.Path(config.features.run).name
        name += f"-{config.features.kind}-{tuned}-{source}"
    return pathlib.Path("runs") / "td3" / name


class TD3Run:
    """One run of a program."""

    def __init__(self, config: config_dict.ConfigDict):
        """Name the folder and refuse it if it cannot take this run; nothing is made."""
        self.config, self.seed = config, config.seed
        self.folder = pathlib.Path(config.out)
        runs.check_folder(self.folder, runs.to_json(config))

    def open(self, algorithm: td3.TD3, stats: Mapping[str, tokens.Stats]) -> None:
        """Make the folder, or continue the same run in it."""
        self._algorithm, self._stats = algorithm, stats
        self._frozen = {} if algorithm.features.finetuned else algorithm.features.params
        runs.open_run(self.folder, runs.to_json(self.config))

    def stored_results(self) -> list[dict]:
        """Read the row of a finished run; none if it is not finished."""
        path = self.folder / results.RESULTS_FILE
        rows = records.read_jsonl(path) if path.exists() else []
        return [row for row in rows if row["step"] == self.config.steps]

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the folder against other processes."""
        with runs.only_writer(self.folder):
            runs.settle(self.folder, runs.to_json(self.config))
            self._writer = metrics.MetricsWriter(self.folder)
            yield

    def open_checkpoints(self) -> checkpoint.Checkpoints:
        """Open the checkpoints of the run, and return them."""
        self.checkpoints = checkpoint.Checkpoints(self.folder)
        return self.checkpoints

    def restore(self, fresh: td3.TD3State, step: int | None) -> td3.TD3State:
        """Continue from the checkpoint of a step, by default the newest; see `resume.restore`."""
        here = {"stats": self._stats, "frozen": self._frozen}
        check = functools.partial(check_same, self.checkpoints, **here)
        return resume.restore(fresh, self.checkpoints, self.config.use_older, check, step)

    def begin_log(self, step: int) -> None:
        """Drop the metrics after an update, which is repeated."""
        self._writer.truncate(step)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Store the metrics of an update."""
        self._writer.write(step, row)

    def save(self, state: td3.TD3State, row: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint, with what the actor sees by; none is scored by its metrics."""
        saved = {"params": state.actor, "stats": self._stats}
        saved |= {"features": self._frozen} if self._frozen else {}
        meta = {"td3_config": dataclasses.asdict(self._algorithm.config)}
        self.checkpoints.save(int(state.step), saved, state, meta)


def check_same(
    checkpoints: checkpoint.Checkpoints,
    step: int,
    stats: Mapping[str, tokens.Stats],
    frozen: Mapping[str, Any],
) -> None:
    """Hold a checkpoint to the statistics of the data and the frozen encoder that are here now.

    Raises:
        UserError: they differ; it lists in what.
    """
    saved, found = checkpoints.restore_model(step), []
    for name in ("states", "actions"):
        old = tokens.Stats(**saved["stats"][name])
        found += resume.stats_differences(f"stats.{name}", old, stats[name])
    if frozen and not _equal(saved["features"], frozen):
        found.append("the encoder of features.run has other parameters there than here")
    if found:
        raise UserError(
            f"checkpoint {checkpoints.folder / str(step)} is of other data or features: "
            f"{'; '.join(found)}; restore what the run was started with, or choose another "
            "--config.out"
        )


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two trees of parameters are the same."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)
