"""Tabulate results of several runs: a line per data set, a column per method, and their sums.

    python -m experiments.report --config.results=results/m3pc_offline
    python -m experiments.report --config.results=FILE --config.studies=True

Reads every results.jsonl or *.jsonl file below a folder. Means are over runs (training seeds, of
each its last step), intervals by resampling runs and episodes. The last line compares the sums
with one method's. Rows of one method on one data set that were evaluated in different ways are
refused. Rows of studies (`experiments.ablation`) are left out; with `studies` they alone are shown,
a line per value, with the paired difference from the rows that vary nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import rich.box
import rich.console
import rich.table
from ml_collections import config_dict

from experiments.runtime import cli, report_studies, runs
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.plots import score_figures, statistics

_SCORES = "normalized_scores"
_FIELDS = {"dataset": str, "method": str, "seed": int, "step": int, _SCORES: list}
_FIELDS |= {"settings": dict}
# Settings that make another experiment of a row; episodes and their seed only make it more sure.
_KIND = ("source", "preset", "variant", "masks", "entropy", "history")
_KIND += ("target_fraction", "plan", "world")


def main(config: config_dict.ConfigDict) -> None:
    """Read, tabulate, draw."""
    if not config.results:
        raise UserError("no results were named; give --config.results=FOLDER or a file")
    rows, console = read(pathlib.Path(config.results)), rich.console.Console(width=160)
    if config.studies:
        refuse_mixed(row for row in rows if "study" not in row["settings"])
        studies = report_studies.of_studies(rows)
        console.print(report_studies.table(rows, studies))
        if config.figure:
            rows = report_studies.with_plain(rows, studies)
            cli.say(f"figure: {score_figures.studies(rows, config.figure)}")
        return
    scores = score_figures.collect(comparable(rows))
    console.print(table(scores, config.baseline))
    if config.figure:
        cli.say(f"figure: {score_figures.bars(scores, config.figure)}")


def read(path: pathlib.Path) -> list[dict]:
    """Read all rows of results in a file, or below a folder; `file` says where each is from.

    Raises:
        UserError: there are none, or a file is damaged.
    """
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    found = [(file, row) for file in files for row in records.read_jsonl(file)]
    rows = [_checked(file, row) | {"file": file} for file, row in found if _SCORES in row]
    if not rows:
        raise UserError(f"{path} holds no rows of results; run an evaluation first")
    return rows


def _checked(file: pathlib.Path, row: dict) -> dict:
    """Refuse a row of scores that lacks what the table needs."""
    wrong = [key for key, kind in _FIELDS.items() if not isinstance(row.get(key), kind)]
    scores = row[_SCORES]
    if not wrong and not (scores and all(type(s) in (int, float) for s in scores)):
        wrong = [_SCORES]
    if wrong or not np.isfinite(scores).all():
        raise UserError(
            f"{file} holds a row of results whose {', '.join(wrong or [_SCORES])} "
            "cannot be used; remove that row"
        )
    return row


def comparable(rows: Sequence[dict]) -> list[dict]:
    """Leave out rows of studies, and say how many; see `refuse_mixed` for what is left."""
    kept = [row for row in rows if "study" not in row["settings"]]
    if len(kept) < len(rows):
        cli.say(f"left out: {len(rows) - len(kept)} rows of studies (experiments.ablation)")
    if not kept:
        raise UserError("all rows are of studies; give --config.studies=True to tabulate these")
    refuse_mixed(kept)
    return kept


def refuse_mixed(rows: Iterable[dict]) -> None:
    """Hold rows to one kind for each method and data set.

    Raises:
        UserError: some were evaluated in different ways.
    """
    first: dict[tuple[str, str], dict] = {}
    for row in rows:
        other = first.setdefault((row["dataset"], row["method"]), row)
        differ = runs.differences(_kind(other), _kind(row))
        if differ:
            raise UserError(
                f"{row['file']} holds a row of {row['method']} on {row['dataset']} of another kind "
                f"than {other['file']}: {'; '.join(differ.values())}; keep rows of one kind in a "
                "folder, and tabulate each folder by itself"
            )


def _kind(row: dict) -> dict:
    """What a row must share with others of its method and data set to be averaged with them."""
    kind = {key: row["settings"].get(key) for key in _KIND}
    kind["entropy"] = kind["entropy"] or "joint"  # what rows that do not say it were trained with
    if row.get("target_return") is None:  # behaviour cloning asks for none
        del kind["target_fraction"]
    return kind


def table(scores: score_figures.Scores, baseline: str) -> rich.table.Table:
    """Tabulate means with intervals; sums only over data sets that every method has."""
    methods = list(dict.fromkeys(m for group in scores.values() for m in group))
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    grid.add_column("data set")
    for method in methods:
        grid.add_column(method, justify="right")
    for data, group in scores.items():
        grid.add_row(*_line(data, group, methods))
    whole = [group for group in scores.values() if len(group) == len(methods)]
    if not whole:
        return grid
    means = {m: sum(statistics.mean(group[m]) for group in whole) for m in methods}
    # One seed for all methods of a data set, which share their runs' seeds and their episodes'.
    draws = {
        m: sum(statistics.resampled_means(group[m], seed=(0, k)) for k, group in enumerate(whole))
        for m in methods
    }
    sums = (statistics.interval(means[m], draws[m]).text() for m in methods)
    grid.add_row(f"sum of {len(whole)}", *sums)
    if baseline in methods and (draws[baseline] > 0).all():  # a share of nothing says nothing
        ratios = {m: 100 * (draws[m] / draws[baseline] - 1) for m in methods}
        more = {m: 100 * (means[m] / means[baseline] - 1) for m in methods}
        cells = (statistics.interval(more[m], ratios[m]).text("+", "%") for m in methods)
        grid.add_row(f"against {baseline}", *cells)
    return grid


def _line(data: str, group: Mapping[str, Sequence], methods: Sequence[str]) -> list[str]:
    """Write the cells of one data set; methods say their runs where these differ in number."""
    counts = {m: f"{len(r)} run{'s' if len(r) > 1 else ''}" for m, r in group.items()}
    differ = len(set(counts.values())) > 1
    cells = {
        m: statistics.mean_interval(r).text() + (f", {counts[m]}" if differ else "")
        for m, r in group.items()
    }
    label = data if differ else f"{data} ({next(iter(counts.values()))})"
    return [label, *(cells.get(m, "-") for m in methods)]


if __name__ == "__main__":
    cli.run(main)
