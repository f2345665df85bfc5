"""Records of a run: append-only JSON lines for metrics and results, a table of scores, progress.

A row counts once its line is complete: a line that a killed process left unfinished is dropped.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import pathlib
import platform
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from rich import box as rich_box
from rich import console as rich_console
from rich import table as rich_table

from mtm_jax import progress as progress_module
from mtm_jax.errors import UserError

progress = progress_module.progress

METRICS_FILE = "metrics.jsonl"
RESULTS_FILE = "results.jsonl"
_PACKAGES = ("jax", "flax", "mujoco", "gymnasium", "minari", "mtm_jax")
_RESULT_KEYS = (
    *("experiment", "env_id", "dataset", "method", "seed", "step", "checkpoint", "returns"),
    *("normalized_scores", "normalized_mean", "target_return", "settings", "versions"),
)


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
        _append(self.path, {"step": int(step), **row})

    def truncate(self, step: int) -> None:
        """Drop the rows after `step`, so that a resumed run repeats none."""
        if self.path.exists():
            kept = [row for row in read_jsonl(self.path) if row["step"] <= step]
            _replace(self.path, "".join(_line(row) for row in kept).encode())


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


def result(
    *,
    experiment: str,
    env_id: str,
    dataset: str,
    method: str,
    seed: int,
    step: int,
    returns: Sequence[float],
    normalized_scores: Sequence[float],
    target_return: float | None,
    settings: Mapping,
    checkpoint: str = "last",
    metrics: Mapping[str, float] | None = None,
) -> dict:
    """Build one row of `results.jsonl`: one method, evaluated on the episodes of one checkpoint.

    Args:
        experiment: the program.
        env_id: gymnasium id that was evaluated.
        dataset: e.g. "hopper-medium".
        method: e.g. "m3pc_forward".
        seed: of training and evaluation.
        step: gradient steps of the checkpoint.
        returns: undiscounted return of each episode.
        normalized_scores: the same on the scale of D4RL, 0 random to 100 expert.
        target_return: the return that was asked for; None where none is.
        settings: everything else that chose this number.
        checkpoint: "last", or how it was chosen.
        metrics: further numbers, e.g. "dataset_mean_score".

    Raises:
        ValueError: see `check_result`.
    """
    scores = [float(score) for score in normalized_scores]
    row = {
        "experiment": experiment,
        "env_id": env_id,
        "dataset": dataset,
        "method": method,
        "seed": int(seed),
        "step": int(step),
        "checkpoint": checkpoint,
        "returns": [float(value) for value in returns],
        "normalized_scores": scores,
        "normalized_mean": float(np.mean(scores)) if scores else math.nan,
        "target_return": None if target_return is None else float(target_return),
        "settings": dict(settings),
        "versions": versions(),
        "metrics": dict(metrics or {}),
    }
    check_result(row)
    return row


def check_result(row: Mapping) -> None:
    """Hold a row to the contract of `results.jsonl`.

    Raises:
        ValueError: a key is missing, there is no episode, returns and scores differ in number,
            or a number is not finite.
    """
    missing = [key for key in _RESULT_KEYS if key not in row]
    if missing:
        raise ValueError(f"result lacks {', '.join(missing)}")
    episodes, scores = len(row["returns"]), len(row["normalized_scores"])
    if episodes == 0 or episodes != scores:
        raise ValueError(
            f"result of {row['method']} has {episodes} returns and {scores} normalized scores; "
            "it needs one of each per episode"
        )
    for key in ("returns", "normalized_scores", "normalized_mean"):
        if not np.isfinite(row[key]).all():
            raise ValueError(f"{key} of {row['method']} are {row[key]}; they must be finite")


def write_result(run_dir: str | os.PathLike, row: Mapping) -> None:
    """Append one row, as `result` builds it, to `results.jsonl` of a run.

    Raises:
        ValueError: see `check_result`.
    """
    check_result(row)
    _append(pathlib.Path(run_dir) / RESULTS_FILE, row)


def versions() -> dict[str, str | None]:
    """Versions of what decides a result, and the device; None where a package is missing."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": device.platform,
        "device": device.device_kind,
    }


def read_jsonl(path: str | os.PathLike) -> list[dict]:
    """Read the complete rows of a file of JSON lines.

    Raises:
        UserError: there is no such file, or a line is damaged.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path} line {number} is damaged: {error}") from None
    return rows


def print_results(rows: Iterable[Mapping]) -> None:
    """Print one line per row of results: score, episodes, mean return, target return."""
    table = rich_table.Table(box=rich_box.SIMPLE_HEAD)
    for column in ("data set", "method", "seed", "score", "episodes", "return", "target"):
        justify = "left" if column in ("data set", "method") else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        scores, target = row["normalized_scores"], row["target_return"]
        table.add_row(
            row["dataset"],
            row["method"],
            str(row["seed"]),
            f"{np.mean(scores):.1f} ± {np.std(scores):.1f}",
            str(len(scores)),
            f"{np.mean(row['returns']):.1f}",
            "-" if target is None else f"{target:.1f}",
        )
    console = rich_console.Console()
    console.width = console.width if console.is_terminal else 120
    console.print(table)
    console.print("score ± standard deviation over episodes; 100 = D4RL's expert")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plain(value: object) -> object:
    """Turn numpy and jax values into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON")


def _line(row: Mapping) -> str:
    return json.dumps(row, default=_plain, allow_nan=False) + "\n"


def _append(path: pathlib.Path, row: Mapping) -> None:
    line = _line(row).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_unfinished_line(path)
    with path.open("ab") as file:
        file.write(line)


def _drop_unfinished_line(path: pathlib.Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
    content = path.read_bytes()
    _replace(path, content[: content.rfind(b"\n") + 1])


def _replace(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
