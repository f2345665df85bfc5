"""Charts of scores: every episode of a run, methods over data sets, options of plans."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import numpy as np
from matplotlib import figure, rc_context
from matplotlib.axes import Axes

from mtm_jax.errors import UserError
from mtm_jax.io import records, results
from mtm_jax.plots import statistics, style

# Data set -> method -> scores of the episodes of each run.
Scores = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
# Option of a plan -> label of its axis, where it is not the option's name.
_LABELS = {
    "candidates": "candidates N",
    "horizon": "horizon h",
    "lambda_": "λ",
    "xi": "ξ",
    "discount": "discount γ",
}


def episodes(run_dir: str | os.PathLike) -> pathlib.Path:
    """Draw the normalised scores of a run: a dot per episode, a bar at the mean of each method.

    Rows with different target returns have a column each, seeds share one, and an evaluation
    that was repeated counts once. A dashed line marks the mean score of the data where the metrics
    of a row hold "dataset_mean_score".

    Returns:
        The file, `figures/scores.png` in the run.

    Raises:
        UserError: the run has no results, or they are damaged.
    """
    rows = records.read_jsonl(pathlib.Path(run_dir) / results.RESULTS_FILE)
    if not rows:
        raise UserError(f"{run_dir} has no results to draw yet")
    columns = _columns(rows)
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(max(4.0, 1.3 * len(columns) + 1.5), 3.6), layout="constrained")
        axis = fig.subplots()
        for place, values in enumerate(columns.values()):
            _column(axis, place, values, style.CYCLE[place % len(style.CYCLE)])
        _data_line(axis, rows)
        axis.set_xticks(range(len(columns)), list(columns))
        axis.set_xlim(-0.6, len(columns) - 0.4)
        axis.grid(axis="x", visible=False)
        axis.set_ylabel("normalised score of an episode")
        axis.set_title(", ".join(dict.fromkeys(row["dataset"] for row in rows)))
        return style.save(fig, pathlib.Path(run_dir) / "figures" / "scores.png")


def bars(scores: Scores, path: str | os.PathLike) -> pathlib.Path:
    """Draw the mean score of every method on every data set with its 95% interval.

    Args:
        scores: data set -> method -> scores of the episodes of each run.
        path: PNG file to write.

    Raises:
        UserError: a method has no scores, or the file cannot be written.
    """
    methods = list(dict.fromkeys(m for group in scores.values() for m in group))
    width = 0.8 / len(methods)
    with rc_context(style.AXES):
        size = (max(5.0, 1.5 + 0.45 * len(methods) * len(scores)), 3.6)
        fig = figure.Figure(figsize=size, layout="constrained")
        axis = fig.subplots()
        for k, method in enumerate(methods):
            places = [i for i, group in enumerate(scores.values()) if method in group]
            found = [group[method] for group in scores.values() if method in group]
            x = np.array(places) + (k - (len(methods) - 1) / 2) * width
            means, reach = _means(found)
            colour = style.CYCLE[k % len(style.CYCLE)]
            axis.bar(x, means, 0.9 * width, color=colour, label=method)
            axis.errorbar(x, means, reach, fmt="none", color=style.BLACK, lw=1, capsize=2)
        axis.set_xticks(range(len(scores)), [name.replace("-", "\n", 1) for name in scores])
        axis.grid(axis="x", visible=False)
        axis.set_ylabel("normalised score")
        fig.legend(loc="outside upper center", ncols=min(len(methods), int(size[0] / 1.5)))
        return style.save(fig, path)


def studies(rows: Sequence[Mapping], path: str | os.PathLike) -> pathlib.Path:
    """Draw mean scores against the values of options: a panel per option, a line per method.

    Args:
        rows: results whose settings hold a `study`, the name and value of the option. Rows of the
            same method, option and value are runs of several seeds, of which the last row of each
            counts; intervals are 95%.
        path: PNG file to write.

    Raises:
        UserError: the file cannot be written.
    """
    names = list(dict.fromkeys(row["settings"]["study"]["name"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with rc_context(style.AXES):
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
        return style.save(fig, path)


def _study(axis: Axes, rows: Sequence[Mapping], methods: Sequence[str]) -> None:
    """Draw the panel of one option."""
    found = by_seed(rows, study_of)
    values = list(dict.fromkeys(value for _, value, _ in found))
    shape = "o-" if all(isinstance(value, int | float) for value in values) else "o"
    for k, method in enumerate(methods):
        runs = {value: runs for (_, value, m), runs in found.items() if m == method}
        if not runs:
            continue
        places = [values.index(value) + 0.06 * k for value in runs]
        means, reach = _means([list(seeds.values()) for seeds in runs.values()])
        colour = style.CYCLE[k % len(style.CYCLE)]
        axis.errorbar(places, means, reach, fmt=shape, color=colour, capsize=2, label=method)
    axis.set_xticks(range(len(values)), [_tick(value, rows) for value in values])
    name = rows[0]["settings"]["study"]["name"]
    axis.set_xlabel(_LABELS.get(name, name.strip("_").replace("_", " ")))


def _means(found: Sequence[Sequence[Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return means [n] and the distances to the bounds of their intervals, [2, n]."""
    intervals = np.array([statistics.mean_interval(runs) for runs in found])
    mean, low, high = intervals.T
    return mean, np.abs(np.stack([low, high]) - mean)


def _tick(value: object, rows: Sequence[Mapping]) -> str:
    """Name a value; where it left less room for the history, with the steps that were left."""
    left = {row["settings"]["study"]["value"]: row["settings"]["plan"]["history"] for row in rows}
    shortened = left[value] < max(left.values()) and left[value] != value
    return f"{value}\npast {left[value]}" if shortened else str(value)


def _columns(rows: Iterable[Mapping]) -> dict[str, np.ndarray]:
    """Sort rows into label -> scores of all episodes."""
    latest = {}
    for row in rows:
        target = row["target_return"]
        label = row["method"] if target is None else f"{row['method']}\ntarget {target:.0f}"
        run = (row["seed"], row["step"], row["settings"].get("eval_seed"))
        latest.setdefault(label, {})[run] = row["normalized_scores"]
    return {label: np.concatenate(list(runs.values())) for label, runs in latest.items()}


def _column(axis: Axes, place: int, values: np.ndarray, colour: str) -> None:
    spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
    axis.scatter(place + spread, values, s=14, color=colour, alpha=0.45, lw=0)
    axis.plot([place - 0.28, place + 0.28], [values.mean()] * 2, color=colour, lw=2.5)
    axis.text(place + 0.31, values.mean(), f"{values.mean():.1f}", va="center", fontsize=9)


def _data_line(axis: Axes, rows: Iterable[Mapping]) -> None:
    means = {row.get("metrics", {}).get("dataset_mean_score") for row in rows} - {None}
    for mean in means:
        axis.axhline(mean, color=style.BLACK, lw=1, ls="--", label="mean of the data")
    if means:
        axis.legend(fontsize=8)


def collect(rows: Sequence[Mapping]) -> dict[str, dict[str, list[list[float]]]]:
    """Sort rows of results by data set and method, with a run for each seed, in order.

    The last step of a seed counts, and of that step the last evaluation.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    for (data, method), seeds in by_seed(rows, lambda r: (r["dataset"], r["method"])).items():
        found.setdefault(data, {})[method] = [seeds[seed] for seed in sorted(seeds)]
    return found


def by_seed(
    rows: Sequence[Mapping], kind: Callable[[Mapping], Hashable]
) -> dict[Hashable, dict[int, list[float]]]:
    """Group rows of results by a function of them: kind -> seed -> scores of its episodes.

    The last step of a seed counts, and of that step the last evaluation.
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
    """Return the option that a row of a study varies, its value, and the method."""
    study = row["settings"]["study"]
    return study["name"], study["value"], row["method"]
