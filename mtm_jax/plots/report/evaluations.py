"""Rows of results as tables: methods with intervals, paired differences, episodes, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtm_jax.plots import statistics, style
from mtm_jax.plots.report import blocks
from mtm_jax.plots.report.run import Run

Row = Mapping[str, Any]  # of results.jsonl
_NONE = "–"


def latest(rows: Sequence[Row]) -> dict[str, Row]:
    """Keep the last evaluation of each way of acting: label -> row.

    The largest step counts, and of that step the last row. Ways of one method that differ in a
    setting have it in their label. Rows of studies are left out.
    """
    found: dict[tuple, Row] = {}
    for row in rows:
        if "study" not in row["settings"]:
            key = row["method"], json.dumps(_kind(row), sort_keys=True)
            if row["step"] >= found.get(key, row)["step"]:
                found[key] = row
    of_method: dict[str, list[Row]] = {}
    for row in found.values():
        of_method.setdefault(row["method"], []).append(row)
    return {_label(row, same): row for same in of_method.values() for row in same}


def _kind(row: Row) -> dict[str, Any]:
    """Return what chose the numbers of a row, "a.b" -> value."""
    return flat(row["settings"]) | {
        "target": row["target_return"],
        "checkpoint": row["checkpoint"],
    }


def _label(row: Row, same: Sequence[Row]) -> str:
    """Name a way of acting by its method and by the settings in which it differs from others."""
    kinds = [_kind(one) for one in same]
    keys = dict.fromkeys(key for kind in kinds for key in kind)
    vary = [key for key in keys if any(k.get(key) != kinds[0].get(key) for k in kinds)]
    own = _kind(row)
    said = [f"{key.rpartition('.')[2]} {written(own.get(key))}" for key in vary]
    return row["method"] + (f" ({', '.join(said)})" if said else "")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested settings, "a.b" -> value."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def written(value: object) -> str:
    """Write a setting for people."""
    if value is None:
        return "unset"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(written, value)) if isinstance(value, list | tuple) else str(value)


def colours(runs: Sequence[Run]) -> dict[str, str]:
    """Give each way of acting a colour, in the order of the charts: label -> colour."""
    labels = dict.fromkeys(label for run in runs for label in latest(run.results))
    return {label: style.CYCLE[k % len(style.CYCLE)] for k, label in enumerate(labels)}


def methods(run: Run, baseline: str, known: Mapping[str, str]) -> blocks.Table:
    """Tabulate the scores of one run, with differences from a method in the same episodes.

    Args:
        run: has results.
        baseline: method that the others are compared with; where it was not evaluated, nothing is.
        known: `colours`.
    """
    rows = latest(run.results)
    base = next((row for row in rows.values() if row["method"] == baseline), None)
    header = ["method", "score", "95% interval", "episodes", "return", "return asked for"]
    header += [f"score − {baseline}"] if base else []
    lines = []
    for label, row in rows.items():
        compared = _difference(row, base) if base is not row else _NONE
        cells = [blocks.Cell(label, colour=known[label]), *_score(row), str(len(row["returns"]))]
        cells += [f"{np.mean(row['returns']):,.1f}", _number(row["target_return"])]
        lines.append(cells + ([compared] if base else []))
    data = "; ".join(dict.fromkeys(f"{r['dataset']} in {r['env_id']}" for r in rows.values()))
    caption = f"{run.name}, {data}: mean normalised scores (0 random, 100 expert)"
    return blocks.table(caption, header, lines)


def side_by_side(runs: Sequence[Run], known: Mapping[str, str]) -> blocks.Table:
    """Tabulate the scores of several runs, with differences from the first in the same episodes."""
    first, *others = found = [latest(run.results) for run in runs]
    names = [run.name for run in runs]
    header = ["method", *names, *(f"{name} − {names[0]}" for name in names[1:])]
    lines = []
    for label, colour in known.items():
        rows = [rows.get(label) for rows in found]
        scores = [" ".join(_score(row)) if row else _NONE for row in rows]
        differences = [_difference(other.get(label), first.get(label)) for other in others]
        lines.append([blocks.Cell(label, colour=colour), *scores, *differences])
    caption = "Mean normalised scores with 95% intervals over episodes, and paired differences"
    return blocks.table(caption, header, lines)


def _score(row: Row) -> tuple[str, str]:
    """Write the mean score of a row and its interval."""
    found = statistics.mean_interval([row["normalized_scores"]])
    return f"{found.mean:.1f}", f"[{found.low:.1f}, {found.high:.1f}]"


def paired(one: Row, other: Row) -> bool:
    """Whether two rows are of the same episodes: their environment, seeds and number agree."""
    first, other_first = (row["settings"].get("eval_seed") for row in (one, other))
    same = one["env_id"] == other["env_id"] and len(one["returns"]) == len(other["returns"])
    return same and first is not None and first == other_first


def _difference(row: Row | None, base: Row | None) -> str:
    """Write the mean difference of the scores of two rows over their episodes, with its interval.

    Pairs of episodes are resampled: both began in the same state.
    """
    if row is None or base is None:
        return _NONE
    if not paired(row, base):
        return "other episodes"
    pairs = np.subtract(row["normalized_scores"], base["normalized_scores"])
    return statistics.mean_interval([pairs]).text("+")


def episodes(run: Run, known: Mapping[str, str]) -> blocks.Table:
    """Tabulate the return of every episode of a run; a line per way of acting."""
    rows = latest(run.results)
    most = max(len(row["returns"]) for row in rows.values())
    lines = []
    for label, row in rows.items():
        values = [f"{value:,.1f}" for value in row["returns"]]
        start = row["settings"].get("eval_seed")
        cells = [blocks.Cell(label, colour=known[label]), written(start), *values]
        lines.append(cells + [""] * (most - len(values)))
    header = ["method", "first seed", *(str(k + 1) for k in range(most))]
    return blocks.table(f"{run.name}: returns of all episodes", header, lines)


def asked(run: Run, known: Mapping[str, str]) -> blocks.Table | None:
    """Tabulate the return that was asked for beside the one that was reached; None without any."""
    rows = {k: r for k, r in latest(run.results).items() if r["target_return"] is not None}
    lines = [
        [
            blocks.Cell(label, colour=known[label]),
            f"{row['target_return']:,.1f}",
            f"{np.mean(row['returns']):,.1f}",
            f"{np.max(row['returns']):,.1f}",
        ]
        for label, row in rows.items()
    ]
    header = ["method", "asked for", "reached, mean", "reached, best"]
    caption = f"{run.name}: returns asked for and reached"
    return blocks.table(caption, header, lines) if lines else None


def versions(runs: Sequence[Run]) -> blocks.Table | None:
    """Tabulate environments, versions and devices of each run's evaluations; None without any."""
    found = {
        run.name: [{"environment": row["env_id"]} | flat(row["versions"]) for row in run.results]
        for run in runs
    }
    keys = dict.fromkeys(key for rows in found.values() for row in rows for key in row)
    lines = []
    for key in keys:
        values = [
            dict.fromkeys(written(r[key]) for r in rows if key in r) for rows in found.values()
        ]
        lines.append([key, *(", ".join(said) or _NONE for said in values)])
    caption = "Environment, versions and device of the evaluations; several where they differ"
    return blocks.table(caption, ["of", *found], lines, words=1 + len(found)) if lines else None


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.1f}"
