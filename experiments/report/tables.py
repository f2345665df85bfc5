"""Tables of results: a line per data set, a column per method, and sums."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import rich.box
import rich.console
import rich.table
from ml_collections import config_dict

from experiments.runtime import cli, report_studies, runs
from mtm_jax.config import DEFAULT_PROMPT
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.planning import roles
from mtm_jax.plots import scores, statistics

_SCORES = "normalized_scores"
_FIELDS = {"dataset": str, "method": str, "seed": int, "step": int, _SCORES: list}
_FIELDS |= {"settings": dict}
# Settings in which rows of a mean must agree; they may differ in the episodes and their seed.
_KIND = ("source", "preset", "variant", "masks", "entropy", "history")
_KIND += ("target_fraction", "prompt", "plan", "world")


def show(config: config_dict.ConfigDict) -> None:
    """Read the rows, print the table, draw the chart."""
    rows, console = read(pathlib.Path(config.results)), rich.console.Console(width=160)
    if config.studies:
        refuse_mixed(row for row in rows if "study" not in row["settings"])
        studies = report_studies.of_studies(rows)
        console.print(report_studies.table(rows, studies))
        if config.figure:
            rows = report_studies.with_plain(rows, studies)
            cli.say(f"figure: {scores.studies(rows, config.figure)}")
        return
    found = scores.collect(comparable(rows))
    console.print(table(found, config.baseline))
    if config.figure:
        cli.say(f"figure: {scores.bars(found, config.figure)}")


def read(path: pathlib.Path) -> list[dict]:
    """Read all rows of results in a file or below a folder, and add the file to each as `file`.

    Raises:
        UserError: there are none, or a file is damaged.
    """
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    found = [(file, row) for file in files for row in records.read_jsonl(file)]
    rows = [checked(file, row) | {"file": file} for file, row in found if _SCORES in row]
    if not rows:
        raise UserError(f"{path} holds no rows of results; run an evaluation first")
    return rows


def checked(file: pathlib.Path, row: dict) -> dict:
    """Return a row of results if it has what the table needs.

    Raises:
        UserError: a field is missing or of the wrong type.
    """
    wrong = [key for key, kind in _FIELDS.items() if not isinstance(row.get(key), kind)]
    values = row.get(_SCORES)
    if not wrong and not (values and all(type(v) in (int, float) for v in values)):
        wrong = [_SCORES]
    if wrong or not np.isfinite(values).all():
        raise UserError(
            f"{file} holds a row of results whose {', '.join(wrong or [_SCORES])} "
            "cannot be used; remove that row"
        )
    return row


def comparable(rows: Sequence[dict]) -> list[dict]:
    """Leave out rows of studies, say how many, and check the others with `refuse_mixed`."""
    kept = [row for row in rows if "study" not in row["settings"]]
    if len(kept) < len(rows):
        cli.say(f"left out: {len(rows) - len(kept)} rows of experiments.ablation")
    if not kept:
        raise UserError(
            "all rows are from experiments.ablation; give --config.studies=True to tabulate them"
        )
    refuse_mixed(kept)
    return kept


def refuse_mixed(rows: Iterable[dict]) -> None:
    """Refuse rows of one method and data set that were evaluated with different settings.

    Raises:
        UserError: there are such rows; it names their files and the settings.
    """
    first: dict[tuple[str, str], dict] = {}
    for row in rows:
        other = first.setdefault((row["dataset"], row["method"]), row)
        differ = runs.differences(_kind(other), _kind(row))
        if differ:
            raise UserError(
                f"{row['file']} holds a row of {row['method']} on {row['dataset']} with other "
                f"settings than {other['file']}: {'; '.join(differ.values())}; keep such rows in "
                "different folders and tabulate each by itself"
            )


def _kind(row: dict) -> dict:
    """Collect the settings that rows of a mean must share."""
    kind = {key: row["settings"].get(key) for key in _KIND}
    kind["entropy"] = kind["entropy"] or "joint"  # earlier rows do not hold it
    if row["method"] in roles.POLICIES:
        kind["prompt"] = kind["prompt"] or dataclasses.asdict(DEFAULT_PROMPT)
    if row.get("target_return") is None:  # behaviour cloning has no target
        del kind["target_fraction"]
    return kind


def table(found: scores.Scores, baseline: str) -> rich.table.Table:
    """Tabulate means with intervals, and sums over the data sets that every method has."""
    methods = list(dict.fromkeys(m for group in found.values() for m in group))
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    grid.add_column("data set")
    for method in methods:
        grid.add_column(method, justify="right")
    for data, group in found.items():
        grid.add_row(*_line(data, group, methods))
    whole = [group for group in found.values() if len(group) == len(methods)]
    if not whole:
        return grid
    means = {m: sum(statistics.mean(group[m]) for group in whole) for m in methods}
    # Methods of a data set share a seed, because they share the seeds of runs and episodes.
    draws = {
        m: sum(statistics.resampled_means(group[m], seed=(0, k)) for k, group in enumerate(whole))
        for m in methods
    }
    sums = (statistics.interval(means[m], draws[m]).text() for m in methods)
    grid.add_row(f"sum of {len(whole)}", *sums)
    if baseline in methods and (draws[baseline] > 0).all():  # otherwise a ratio has no meaning
        ratios = {m: 100 * (draws[m] / draws[baseline] - 1) for m in methods}
        more = {m: 100 * (means[m] / means[baseline] - 1) for m in methods}
        cells = (statistics.interval(more[m], ratios[m]).text("+", "%") for m in methods)
        grid.add_row(f"relative to {baseline}", *cells)
    return grid


def _line(data: str, group: Mapping[str, Sequence], methods: Sequence[str]) -> list[str]:
    """Write the cells of a data set, with the number of runs where methods differ in it."""
    counts = {m: f"{len(r)} run{'s' if len(r) > 1 else ''}" for m, r in group.items()}
    differ = len(set(counts.values())) > 1
    cells = {
        m: statistics.mean_interval(r).text() + (f", {counts[m]}" if differ else "")
        for m, r in group.items()
    }
    label = data if differ else f"{data} ({next(iter(counts.values()))})"
    return [label, *(cells.get(m, "-") for m in methods)]
