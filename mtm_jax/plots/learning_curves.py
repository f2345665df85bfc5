"""Learning curves of a run."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib import figure, rc_context, ticker
from matplotlib.axes import Axes

from mtm_jax.errors import UserError
from mtm_jax.io import metrics, records
from mtm_jax.plots import style
from mtm_jax.types import MODALITIES

_OUTLIER = 20  # times the median: values that would flatten the rest of a curve


def draw(run_dir: str | os.PathLike) -> pathlib.Path:
    """Draw every metric of a run against its gradient steps.

    Training losses share a panel with a logarithmic axis, except those that are not always
    positive; a panel of these in which the first steps would flatten the rest is logarithmic
    beyond 1. Validation errors have a panel per modality with a curve per mask pattern:
    "valid/fd/states" is the curve "fd" of "validation: states". Other metrics have their own panel.

    Returns:
        The file, `figures/learning_curve.png` in the run.

    Raises:
        UserError: the run has no metrics, or they are damaged.
    """
    rows = records.read_jsonl(pathlib.Path(run_dir) / metrics.METRICS_FILE)
    panels = _panels(rows)
    if not panels:
        raise UserError(f"{run_dir} has no metrics to draw yet")
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(4.0 * columns, 2.9 * lines), layout="constrained")
        axes = fig.subplots(lines, columns, squeeze=False).ravel()
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            _curves(axis, title, curves)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        return style.save(fig, pathlib.Path(run_dir) / "figures" / "learning_curve.png")


def _panels(rows: Iterable[Mapping]) -> dict[str, dict[str, np.ndarray]]:
    """Sort rows into panel -> curve -> steps and values, [points, 2]."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name in (key for key in row if key != "step"):
            points.setdefault(name, []).append((row["step"], row[name]))
    panels: dict[str, dict[str, np.ndarray]] = {}
    for name, pairs in points.items():
        curve = np.array(pairs, float)
        panel, label = _place(name, positive=bool((curve[:, 1] > 0).all()))
        panels.setdefault(panel, {})[label] = curve
    return panels


def _place(name: str, positive: bool) -> tuple[str, str]:
    """Return the panel and the label of a metric, see `draw`."""
    group, _, rest = name.partition("/")
    pattern, _, leaf = rest.rpartition("/")
    if group == "valid" and pattern:
        return f"validation: {leaf}", pattern
    if leaf in (*MODALITIES, "loss"):
        return (f"{group} losses", leaf) if positive else (name, leaf)
    return leaf or name, group


def _curves(axis: Axes, title: str, curves: Mapping[str, np.ndarray]) -> None:
    some_modality = set(MODALITIES) & set(curves)
    others = itertools.cycle(
        (style.BLACK, style.PURPLE, style.SKY) if some_modality else style.CYCLE
    )
    for name, points in curves.items():
        colour = style.MODALITY_COLOURS.get(name) or next(others)
        marker = "o" if len(points) == 1 else None
        axis.plot(*points.T, color=colour, lw=1.6, marker=marker, label=name)
    values = np.concatenate([points[:, 1] for points in curves.values()])
    if (values > 0).all():
        axis.set_yscale("log")
    elif np.abs(values).max() > _OUTLIER * np.median(np.abs(values)):
        axis.set_yscale("symlog", linthresh=1.0)
    axis.set_title(title)
    axis.set_xlabel("gradient steps")
    axis.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axis.legend(fontsize=8, loc="upper right")
