"""Bar charts of scores with intervals."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure, rc_context

from mtm_jax import figures, statistics

# Data set -> method -> scores of the episodes of each run.
Scores = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]


def bars(scores: Scores, path: str | os.PathLike) -> pathlib.Path:
    """Draw the mean score of every method on every data set with its 95% interval.

    Args:
        scores: data set -> method -> scores of the episodes of each run.
        path: the PNG file to write.

    Raises:
        UserError: a method has no scores.
    """
    methods = list(dict.fromkeys(m for group in scores.values() for m in group))
    width = 0.8 / len(methods)
    with rc_context(figures.STYLE):
        size = (max(5.0, 1.5 + 0.45 * len(methods) * len(scores)), 3.6)
        fig = figure.Figure(figsize=size, layout="constrained")
        axis = fig.subplots()
        for k, method in enumerate(methods):
            places = [i for i, group in enumerate(scores.values()) if method in group]
            found = [
                statistics.mean_interval(group[method])
                for group in scores.values()
                if method in group
            ]
            means = np.array([f.mean for f in found])
            reach = np.abs(np.array([(f.low, f.high) for f in found]).T - means)
            x = np.array(places) + (k - (len(methods) - 1) / 2) * width
            colour = figures.CYCLE[k % len(figures.CYCLE)]
            axis.bar(x, means, 0.9 * width, color=colour, label=method)
            axis.errorbar(x, means, reach, fmt="none", color=figures.BLACK, lw=1, capsize=2)
        axis.set_xticks(range(len(scores)), [name.replace("-", "\n", 1) for name in scores])
        axis.grid(axis="x", visible=False)
        axis.set_ylabel("normalised score")
        fig.legend(loc="outside upper center", ncols=len(methods))
        return figures.save(fig, path)


def study(rows: Sequence[Mapping], path: str | os.PathLike) -> pathlib.Path:
    """Draw the mean score against the value of a setting, a line per method, 95% intervals.

    Args:
        rows: results whose settings hold a `study` with its name and value.
        path: the PNG file to write.
    """
    values = list(dict.fromkeys(row["settings"]["study"]["value"] for row in rows))
    with rc_context(figures.STYLE):
        fig = figure.Figure(figsize=(5.0, 3.4), layout="constrained")
        axis = fig.subplots()
        for k, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            found = [
                (values.index(row["settings"]["study"]["value"]), row["normalized_scores"])
                for row in rows
                if row["method"] == method
            ]
            x = np.array([place for place, _ in found]) + 0.06 * k
            means = [statistics.mean_interval([scores]) for _, scores in found]
            reach = [[m.mean - m.low for m in means], [m.high - m.mean for m in means]]
            colour = figures.CYCLE[k % len(figures.CYCLE)]
            axis.errorbar(
                *(x, [m.mean for m in means], reach),
                fmt="o-",
                color=colour,
                capsize=2,
                label=method,
            )
        axis.set_xticks(range(len(values)), [_tick(value, rows) for value in values])
        axis.set_xlabel(rows[0]["settings"]["study"]["name"].strip("_"))
        axis.set_ylabel("normalised score")
        axis.set_title(rows[0]["dataset"])
        axis.legend()
        return figures.save(fig, path)


def _tick(value: object, rows: Sequence[Mapping]) -> str:
    """Name a value; where the history had to give way to it, with the history that was left."""
    left = {row["settings"]["study"]["value"]: row["settings"]["plan"]["history"] for row in rows}
    gave_way = left[value] < max(left.values()) and left[value] != value
    return f"{value}\nhistory {left[value]}" if gave_way else str(value)


def collect(rows: Sequence[Mapping]) -> dict[str, dict[str, list[list[float]]]]:
    """Sort rows of results by data set and method; a run for each seed, in their order.

    Of one seed the last step counts, and of that the last evaluation.
    """
    latest: dict[str, dict[str, dict[int, Mapping]]] = {}
    for row in rows:
        runs = latest.setdefault(row["dataset"], {}).setdefault(row["method"], {})
        if row["step"] >= runs.get(row["seed"], row)["step"]:
            runs[row["seed"]] = row
    return {
        data: {
            method: [list(runs[seed]["normalized_scores"]) for seed in sorted(runs)]
            for method, runs in methods.items()
        }
        for data, methods in latest.items()
    }
