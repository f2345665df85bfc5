"""Scores against a number: a panel for each data set, a line for each kind of model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure, rc_context

from mtm_jax.plots import statistics, style

# Data set -> label of a line -> value on the axis -> scores of the episodes of each run.
Panels = Mapping[str, Mapping[str, Mapping[float, Sequence[Sequence[float]]]]]


def draw(
    panels: Panels,
    axis_label: str,
    path: str | os.PathLike,
    score_label: str = "normalised score",
    logarithmic: bool = True,
) -> pathlib.Path:
    """Draw mean scores with their 95% intervals.

    Args:
        panels: what to draw; empty lines are left out.
        axis_label: what the values are.
        path: PNG file to write.
        score_label: what the scores are.
        logarithmic: whether the axis of the values is, with a tick at each of them.

    Raises:
        UserError: the file cannot be written.
    """
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
        axes = fig.subplots(1, len(panels), squeeze=False)[0]
        for axis, (name, lines) in zip(axes, panels.items(), strict=True):
            for k, (label, points) in enumerate(lines.items()):
                colour = style.CYCLE[k % len(style.CYCLE)]
                x = sorted(points)
                found = [statistics.mean_interval(points[value]) for value in x]
                if found:
                    mean, low, high = np.transpose(found)
                    axis.plot(x, mean, "o-" if logarithmic else "-", color=colour, label=label)
                    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
            ticks = sorted({value for points in lines.values() for value in points})
            if logarithmic:
                axis.set_xscale("log")
                axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
                axis.minorticks_off()
            axis.set_xlabel(axis_label)
            axis.set_title(name)
        axes[0].set_ylabel(score_label)
        if any(len(lines) > 1 for lines in panels.values()):
            axes[0].legend()
        return style.save(fig, path)
