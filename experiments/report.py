"""Tabulate results of several runs: a line per data set, a column per method, and their sums.

    python -m experiments.report --config.results=results/m3pc_offline

Reads every results.jsonl or *.jsonl file below a folder. Means are over runs (training seeds),
intervals by resampling runs and episodes. The last line compares the sums with one method's.
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich.box
import rich.console
import rich.table
from ml_collections import config_dict

from experiments import cli
from mtm_jax import records, score_figures, statistics
from mtm_jax.errors import UserError

_FIELDS = {"dataset": str, "method": str, "seed": int, "step": int, "normalized_scores": list}


def main(config: config_dict.ConfigDict) -> None:
    """Read, tabulate, draw."""
    if not config.results:
        raise UserError("no results were named; give --config.results=FOLDER or a file")
    scores = score_figures.collect(read(pathlib.Path(config.results)))
    rich.console.Console(width=140).print(table(scores, config.baseline))
    if config.figure:
        cli.say(f"figure: {score_figures.bars(scores, config.figure)}")


def read(path: pathlib.Path) -> list[dict]:
    """Read all rows of results in a file, or below a folder.

    Raises:
        UserError: there are none, or a file is damaged.
    """
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    rows = [_checked(file, row) for file in files for row in records.read_jsonl(file)]
    rows = [row for row in rows if "normalized_scores" in row]
    if not rows:
        raise UserError(f"{path} holds no rows of results; run an evaluation first")
    return rows


def _checked(file: pathlib.Path, row: dict) -> dict:
    """Refuse a row of scores that lacks what the table needs."""
    if "normalized_scores" not in row:  # a row of something else
        return row
    wrong = [key for key, kind in _FIELDS.items() if not isinstance(row.get(key), kind)]
    scores = row["normalized_scores"]
    if not wrong and not (scores and all(type(s) in (int, float) for s in scores)):
        wrong = ["normalized_scores"]
    if wrong or not np.isfinite(scores).all():
        raise UserError(
            f"{file} holds a row of results whose {', '.join(wrong or ['normalized_scores'])} "
            "cannot be used; remove that row"
        )
    return row


def table(scores: score_figures.Scores, baseline: str) -> rich.table.Table:
    """Tabulate means with intervals; sums only over data sets that every method has."""
    methods = list(dict.fromkeys(m for group in scores.values() for m in group))
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    grid.add_column("data set")
    for method in methods:
        grid.add_column(method, justify="right")
    found = {
        data: {m: statistics.mean_interval(runs) for m, runs in group.items()}
        for data, group in scores.items()
    }
    for data, group in found.items():
        runs = max(len(r) for r in scores[data].values())
        cells = (
            f"{group[m].mean:.1f} [{group[m].low:.1f}, {group[m].high:.1f}]" if m in group else "-"
            for m in methods
        )
        grid.add_row(f"{data} ({runs} runs)", *cells)
    whole = [group for group in found.values() if len(group) == len(methods)]
    totals = {m: sum(group[m].mean for group in whole) for m in methods}
    grid.add_row(f"sum of {len(whole)}", *(f"{totals[m]:.1f}" for m in methods))
    if totals.get(baseline):
        ratios = (f"{100 * (totals[m] / totals[baseline] - 1):+.1f}%" for m in methods)
        grid.add_row(f"against {baseline}", *ratios)
    return grid


if __name__ == "__main__":
    cli.run(main)
