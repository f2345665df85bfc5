"""Metrics of a run: `metrics.jsonl` always, Weights & Biases on request."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping

from mtm_jax.errors import UserError
from mtm_jax.io import records

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends rows {"step": ..., "group/name": ...} to `metrics.jsonl` of a run."""

    def __init__(self, run_dir: str | os.PathLike):
        """Open the log of `run_dir`, which is created where it is missing."""
        self.path = pathlib.Path(run_dir) / METRICS_FILE

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row; it is flushed when this returns.

        Args:
            step: gradient steps done.
            metrics: "group/name" -> scalar (Python, numpy or jax).

        Raises:
            ValueError: a metric is not finite.
        """
        row = {name: float(value) for name, value in metrics.items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name} is {value} at step {step}; it must be finite")
        records.append(self.path, {"step": int(step), **row})

    def truncate(self, step: int) -> None:
        """Drop the rows after `step`, so that a resumed run repeats none."""
        if self.path.exists():
            rows = records.read_jsonl(self.path)
            records.rewrite(self.path, [row for row in rows if row["step"] <= step])


class WandbWriter:
    """Sends the same rows to Weights & Biases, besides the files of the run."""

    def __init__(self, project: str, name: str, config: Mapping):
        """Start a run of `project`.

        Raises:
            UserError: wandb is not installed.
        """
        try:
            import wandb
        except ImportError:
            raise UserError(
                "logging to Weights & Biases needs wandb; run: pip install 'mtm_jax[wandb]', "
                "or leave --config.wandb_project empty"
            ) from None
        self._run = wandb.init(project=project, name=name, config=dict(config))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send one row."""
        self._run.log({name: float(value) for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
