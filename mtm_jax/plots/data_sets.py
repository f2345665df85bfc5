"""Histograms of the returns and lengths of episodes in data sets."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib import figure, rc_context, ticker
from matplotlib.axes import Axes

from mtm_jax.data import inspection
from mtm_jax.envs import registry
from mtm_jax.plots import style
from mtm_jax.types import DataInfo, Trajectories

_BINS = 40


def histograms(trajectories: Trajectories, path: str | os.PathLike) -> pathlib.Path:
    """Draw histograms of the returns and the lengths of a data set's episodes.

    Args:
        trajectories: the data set.
        path: PNG file to write.

    Raises:
        UserError: it cannot be written.
    """
    info = trajectories.info
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(8.4, 3.3), layout="constrained")
        left, right = fig.subplots(1, 2)
        _histogram(left, inspection.returns(trajectories), style.BLUE, "episode return")
        _score_axis(left, info)
        _histogram(right, trajectories.lengths, style.GREEN, "episode length (steps)")
        left.set_ylabel("episodes")
        fig.suptitle(
            f"{info.name}: {len(trajectories.lengths):,} episodes, "
            f"{len(trajectories.rewards):,} steps",
            ha="left",
            x=0.01,
            fontsize=11,
        )
        return style.save(fig, path)


def return_grid(returns: Mapping[str, np.ndarray], path: str | os.PathLike) -> pathlib.Path:
    """Draw histograms of the returns of several data sets, with a row per environment.

    Tasks of the same environment share a row.

    Args:
        returns: name, like "hopper-medium" -> undiscounted returns, [episodes].
        path: PNG file to write.

    Raises:
        UserError: it cannot be written.
    """
    rows: dict[str, list[str]] = {}
    for name in sorted(returns, key=_place):
        rows.setdefault(_body(name), []).append(name)
    columns = max(map(len, rows.values()))
    size = (2.6 * columns + 0.6, 2.1 * len(rows) + 0.3)
    with rc_context(style.AXES | {"font.size": 9}):
        fig = figure.Figure(figsize=size, layout="constrained")
        axes = fig.subplots(len(rows), columns, squeeze=False, sharex="row")
        for line, names in zip(axes, rows.values(), strict=True):
            _grid_row(line, {name: returns[name] for name in names})
        return style.save(fig, path)


def _body(name: str) -> str:
    """Return the environment of a row: "walker" for all tasks of the walker."""
    return name.partition("-")[0].partition("_")[0]


def _place(name: str) -> tuple[int, int]:
    """Return the place of a data set in the order of the registry."""
    spec, level = registry.parse_name(name)
    return list(registry.ENVS).index(spec.name), spec.levels.index(level)


def _histogram(axis: Axes, values: np.ndarray, colour: str, label: str) -> None:
    if not len(values):
        axis.set_axis_off()
        return
    mean = float(values.mean())
    axis.hist(values, bins=int(np.clip(2 * len(values) ** 0.5, 10, _BINS)), color=colour)
    axis.axvline(mean, color=style.BLACK, lw=1.2, ls="--", label=f"mean {mean:,.1f}")
    axis.set_xlabel(label)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axis.grid(axis="x", visible=False)
    axis.margins(y=0.2)  # room for the legend
    axis.legend(fontsize=9)


def _score_axis(axis: Axes, info: DataInfo) -> None:
    """Show the normalised score on top if the environment has reference returns."""
    spec = inspection.reference(info)
    if spec is None or not axis.patches:
        return
    low, width = spec.reference_min, (spec.reference_max - spec.reference_min) / 100.0
    top = axis.secondary_xaxis(
        "top", functions=(lambda r: (r - low) / width, lambda s: low + s * width)
    )
    top.set_xlabel("normalised score")
    top.xaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))


def _grid_row(axes: np.ndarray, returns: Mapping[str, np.ndarray]) -> None:
    """Draw data sets side by side, with the same bins."""
    bins = np.histogram_bin_edges(np.concatenate([*returns.values()]), _BINS)
    for axis, (name, values) in zip(axes, returns.items(), strict=False):
        spec, _ = registry.parse_name(name)
        score = registry.normalized_score(spec, values).mean()
        share = np.full(len(values), 100.0 / len(values))
        axis.hist(values, bins=bins, color=style.BLUE, weights=share)
        axis.axvline(values.mean(), color=style.BLACK, lw=1.0, ls="--")
        axis.set_title(f"{name}\nmean score {score:.1f}", fontsize=9)
        axis.set_xlabel("episode return")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
        axis.yaxis.set_major_locator(ticker.MaxNLocator(3))
        axis.grid(axis="x", visible=False)
    for axis in axes[len(returns) :]:
        axis.set_axis_off()
    axes[0].set_ylabel("episodes (%)")
