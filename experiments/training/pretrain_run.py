"""One pretraining run: its folder, what it continues from, and what is written into it."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping

from ml_collections import config_dict

from experiments.runtime import evaluation, resume, runs
from experiments.training import build
from mtm_jax.agents import pretrained
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, metrics, records, results
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import optim, pretrain, sharding


class PretrainRun:
    """One run of a program; of several processes only the first one writes its files."""

    def __init__(self, config: config_dict.ConfigDict):
        """Name the folder; nothing is read or made."""
        self.config, self.seed = config, config.seed
        self.folder = pathlib.Path(config.out) if config.out else build.default_out(config)
        self.writes = sharding.is_main()

    def check_folder(self) -> None:
        """Refuse a folder that cannot take this run; see `runs.check_folder`."""
        if self.writes:
            runs.check_folder(self.folder, runs.to_json(self.config))

    def open(self, data: build.Data, network: Model) -> None:
        """Make the folder, or continue the same run in it."""
        self._data, self._network = data, network
        self.settings = build.pretrain_config(self.config, data)
        self._schedule = optim.make_schedule(self.settings.optim)
        if self.writes:
            runs.open_run(self.folder, runs.to_json(self.config))

    def stored_results(self) -> list[dict]:
        """Read the rows that this program wrote for a finished run; none if one is missing."""
        path = self.folder / results.RESULTS_FILE
        rows = records.read_jsonl(path) if path.exists() else []
        wanted = "pretrain", self.config.steps
        rows = [r for r in rows if (r.get("experiment"), r.get("step")) == wanted]
        methods = evaluation.feasible(self.config.eval.methods, self._data.returns)
        return rows if {row["method"] for row in rows} >= set(methods) else []

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the folder against other processes, and log to Weights & Biases if asked to."""
        holds = runs.only_writer(self.folder) if self.writes else contextlib.nullcontext()
        with holds, self._wandb_writer() as self._wandb:
            if self.writes:
                runs.settle(self.folder, runs.to_json(self.config))
            self._writer = metrics.MetricsWriter(self.folder)
            yield

    def open_checkpoints(self) -> checkpoint.Checkpoints:
        """Open the checkpoints of the run, and return them."""
        keep = self.config.keep_best
        self.checkpoints = checkpoint.Checkpoints(self.folder, not self.writes, keep)
        return self.checkpoints

    def restore(self, fresh: pretrain.TrainState, step: int | None) -> pretrain.TrainState:
        """Continue from the checkpoint of a step, by default the newest; see `resume.restore`."""
        agent = self.make_agent(fresh)
        check = functools.partial(resume.check_agent, self.checkpoints, agent=agent)
        return resume.restore(fresh, self.checkpoints, self.config.use_older, check, step)

    def make_agent(self, state: pretrain.TrainState) -> pretrained.Pretrained:
        """Bundle the present parameters, those that act, with what acting needs."""
        return pretrained.Pretrained(
            model=self._network,
            params=pretrain.acting(state),
            stats=self._data.stats,
            info=self._data.info,
            returns=self._data.returns,
            history=self.config.eval.history,
            step=int(state.step),
            weights="" if state.average is None else "average",
        )

    def begin_log(self, step: int) -> None:
        """Drop the metrics after a step, which is repeated."""
        if self.writes:
            self._writer.truncate(step)

    def log(self, step: int, row: dict[str, float]) -> None:
        """Store the metrics of a step."""
        row["train/learning_rate"] = float(self._schedule(step))
        if self.writes:
            self._writer.write(step, row)
        if self._wandb:
            self._wandb.write(step, row)

    def save(self, state: pretrain.TrainState, row: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint, scored by the metrics of its step."""
        if not self.writes:
            return
        agent, score = self.make_agent(state), score_of(row or {}, self.config)
        saved = {"params": state.params, "stats": self._data.stats}
        if state.average is not None:
            saved["average"] = state.average
        self.checkpoints.save(agent.step, saved, state, pretrained.describe(agent), score)

    @contextlib.contextmanager
    def _wandb_writer(self) -> Iterator[metrics.WandbWriter | None]:
        if not self.config.wandb_project or not self.writes:
            yield None
            return
        settings = runs.to_json(self.config)
        writer = metrics.WandbWriter(self.config.wandb_project, self.folder.name, settings)
        try:
            yield writer
        finally:
            writer.close()


def score_of(row: Mapping[str, float], config: config_dict.ConfigDict) -> float | None:
    """Read the metric by which the best checkpoints are kept; None where it was not measured."""
    if not config.keep_best or not any(name.startswith("valid/") for name in row):
        return None
    check_keep_metric(config, row)
    return float(row[config.keep_metric])


def check_keep_metric(config: config_dict.ConfigDict, names: Iterable[str]) -> None:
    """Hold the metric by which the best checkpoints are kept to those that are measured.

    Raises:
        UserError: it is none of `names`.
    """
    names = sorted(name for name in names if "/" in name)
    if config.keep_best and config.keep_metric not in names:
        raise UserError(
            f"there is no metric {config.keep_metric!r} to keep by; choose among {', '.join(names)}"
        )
