"""Results of a run: one row of `results.jsonl` per evaluated method, and the table of scores."""

from __future__ import annotations

import importlib.metadata
import math
import os
import pathlib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from rich import box as rich_box
from rich import console as rich_console
from rich import table as rich_table

from mtm_jax.io import console, records

RESULTS_FILE = "results.jsonl"
_PACKAGES = ("jax", "flax", "mujoco", "gymnasium", "gymnasium-robotics", "dm_control", "minari")
_PACKAGES += ("mtm_jax",)
_RESULT_KEYS = (
    *("experiment", "env_id", "dataset", "method", "seed", "step", "checkpoint", "returns"),
    *("normalized_scores", "normalized_mean", "target_return", "settings", "versions"),
)
_MEASURED = ("returns", "normalized_scores", "normalized_mean", "metrics")


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
    """Add one row, as `result` builds it, to `results.jsonl` of a run.

    The same evaluation, done again, takes the place of the earlier one: a program that was killed
    while it evaluated leaves no row twice.

    Raises:
        ValueError: see `check_result`.
    """
    check_result(row)
    asked = _asked(records.plain(row))
    path = pathlib.Path(run_dir) / RESULTS_FILE
    records.put(path, row, lambda old: _asked(old) == asked)


def _asked(row: Mapping) -> dict:
    """Select what a row answers: everything but what was measured, and how many episodes."""
    known = {k: v for k, v in row.items() if k not in _MEASURED}
    return known | {"episodes": len(row.get("returns") or ())}


def versions() -> dict[str, str | None]:
    """Versions of what decides a result, and the device; None where a package is missing."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": device.platform,
        "device": device.device_kind,
    }


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
            console.spelled(f"{np.mean(scores):.1f} ± {np.std(scores):.1f}", sys.stdout),
            str(len(scores)),
            f"{np.mean(row['returns']):.1f}",
            "-" if target is None else f"{target:.1f}",
        )
    shown = rich_console.Console(file=console.standard_output())
    shown.width = shown.width if shown.is_terminal else 120
    shown.print(table)
    shown.print("score ± standard deviation over episodes; 100 = D4RL's expert")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
