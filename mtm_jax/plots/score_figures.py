"""Charts of scores with intervals."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from matplotlib import figure, rc_context
from matplotlib.axes import Axes

from mtm_jax.plots import figures, statistics

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


def studies(rows: Sequence[Mapping], path: str | os.PathLike) -> pathlib.Path:
    """Draw mean scores against the values of settings: a panel per study, a line per method.

    Args:
        rows: results whose settings hold a `study` with its name and value. Those of one method,
            study and value are runs of several seeds, of each the last row; intervals hold 95%.
        path: the PNG file to write.
    """
    names = list(dict.fromkeys(row["settings"]["study"]["name"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with rc_context(figures.STYLE):
        columns = min(len(names), 4)
        lines = -(-len(names) // columns)
        size = (max(5.0, 3.2 * columns), 0.4 + 3.0 * lines)
        fig = figure.Figure(figsize=size, layout="constrained")
        axes = fig.subplots(lines, columns, squeeze=False, sharey=True)
        for axis, name in zip(axes.flat, names, strict=False):
            of_name = [row for row in rows if row["settings"]["study"]["name"] == name]
            _study(axis, of_name, methods)
        for axis in axes.flat[len(names) :]:
            axis.remove()
        for axis in axes[:, 0]:
            axis.set_ylabel("normalised score")
        shown = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in fig.axes)
        known = {label: line for pairs in shown for line, label in pairs}
        fig.legend(known.values(), known, loc="outside upper right", ncols=len(known))
        fig.suptitle(", ".join(dict.fromkeys(row["dataset"] for row in rows)))
        return figures.save(fig, path)


def _study(axis: Axes, rows: Sequence[Mapping], methods: Sequence[str]) -> None:
    """Draw one study; its rows are of one name."""
    found = by_seed(rows, study_of)
    values = list(dict.fromkeys(value for _, value, _ in found))
    shape = "o-" if all(isinstance(value, int | float) for value in values) else "o"
    for k, method in enumerate(methods):
        runs = {value: runs for (_, value, m), runs in found.items() if m == method}
        intervals = [statistics.mean_interval(list(seeds.values())) for seeds in runs.values()]
        means = [m.mean for m in intervals]
        reach = [[m.mean - m.low for m in intervals], [m.high - m.mean for m in intervals]]
        places = [values.index(value) + 0.06 * k for value in runs]
        colour = figures.CYCLE[k % len(figures.CYCLE)]
        if runs:
            axis.errorbar(places, means, reach, fmt=shape, color=colour, capsize=2, label=method)
    axis.set_xticks(range(len(values)), [_tick(value, rows) for value in values])
    axis.set_xlabel(rows[0]["settings"]["study"]["name"].strip("_"))


def _tick(value: object, rows: Sequence[Mapping]) -> str:
    """Name a value; where the history had to give way to it, with the history that was left."""
    left = {row["settings"]["study"]["value"]: row["settings"]["plan"]["history"] for row in rows}
    gave_way = left[value] < max(left.values()) and left[value] != value
    return f"{value}\npast {left[value]}" if gave_way else str(value)


def collect(rows: Sequence[Mapping]) -> dict[str, dict[str, list[list[float]]]]:
    """Sort rows of results by data set and method; a run for each seed, in their order.

    Of one seed the last step counts, and of that the last evaluation.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    for (data, method), seeds in by_seed(rows, lambda r: (r["dataset"], r["method"])).items():
        found.setdefault(data, {})[method] = [seeds[seed] for seed in sorted(seeds)]
    return found


def by_seed(
    rows: Sequence[Mapping], kind: Callable[[Mapping], Hashable]
) -> dict[Hashable, dict[int, list[float]]]:
    """Sort rows of results by what `kind` says of them: kind -> seed -> scores of its episodes.

    Of one seed the last step counts, and of that the last evaluation.
    """
    latest: dict[Hashable, dict[int, Mapping]] = {}
    for row in rows:
        runs = latest.setdefault(kind(row), {})
        if row["step"] >= runs.get(row["seed"], row)["step"]:
            runs[row["seed"]] = row
    return {
        key: {seed: list(row["normalized_scores"]) for seed, row in runs.items()}
        for key, runs in latest.items()
    }


def study_of(row: Mapping) -> tuple[str, Hashable, str]:
    """Name the setting that a row of a study varies, its value, and the method."""
    study = row["settings"]["study"]
    return study["name"], study["value"], row["method"]
