"""Figures of a run and of the mask patterns, as PNG files.

Figures are drawn on objects of their own, never through pyplot: no global state, no display.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from matplotlib import figure, patches, rc_context, ticker
from matplotlib.axes import Axes

from mtm_jax import masks
from mtm_jax.config import MaskConfig
from mtm_jax.errors import UserError
from mtm_jax.io import metrics, records, results
from mtm_jax.types import MODALITIES

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, YELLOW, BLACK = "#56B4E9", "#E69F00", "#333333"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, BLACK)
MODALITY_COLOURS = dict(zip(MODALITIES, (BLUE, YELLOW, ORANGE, GREEN), strict=True))
HIDDEN = "#EDEDED"
HIDES = 20  # times its usual size: a value that makes the others of a curve look alike
_TRAINING_SEEDS = (2, 6)  # chosen to differ in what they hide
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
}
_PROMPT_TITLES = {
    "bc": "Behaviour cloning (BC)",
    "rcbc": "Return-conditioned (RCBC)",
    "fd": "Forward dynamics (FD)",
    "rp": "Return prediction (RP)",
    "id": "Inverse dynamics (ID)",
    "pi": "Path inference (PI)",
    "goal": "Goal reaching",
}


def learning_curves(run_dir: str | os.PathLike) -> pathlib.Path:
    """Draw every metric of a run against its steps.

    Training losses share a panel with a logarithmic axis, except those that are not always
    positive; a panel of these whose first steps would hide the rest is logarithmic beyond 1.
    Validation errors have a panel per modality with a curve per mask pattern:
    "valid/fd/states" is the curve "fd" of "validation: states". Others have their own panel.

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
    with rc_context(STYLE):
        fig = figure.Figure(figsize=(4.0 * columns, 2.9 * lines), layout="constrained")
        axes = fig.subplots(lines, columns, squeeze=False).ravel()
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            _curves(axis, title, curves)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        return save(fig, pathlib.Path(run_dir) / "figures" / "learning_curve.png")


def scores(run_dir: str | os.PathLike) -> pathlib.Path:
    """Draw the normalised score of each method: a dot per episode, a bar at the mean.

    Rows that ask for different returns have a column each, seeds share one, and an evaluation
    that was repeated counts once. A dashed line marks the mean score of the data where a row's
    metrics hold "dataset_mean_score".

    Returns:
        The file, `figures/scores.png` in the run.

    Raises:
        UserError: the run has no results, or they are damaged.
    """
    rows = records.read_jsonl(pathlib.Path(run_dir) / results.RESULTS_FILE)
    if not rows:
        raise UserError(f"{run_dir} has no results to draw yet")
    columns = _score_columns(rows)
    with rc_context(STYLE):
        fig = figure.Figure(figsize=(max(4.0, 1.3 * len(columns) + 1.5), 3.6), layout="constrained")
        axis = fig.subplots()
        for place, values in enumerate(columns.values()):
            _score_column(axis, place, values, CYCLE[place % len(CYCLE)])
        _dataset_line(axis, rows)
        axis.set_xticks(range(len(columns)), list(columns))
        axis.set_xlim(-0.6, len(columns) - 0.4)
        axis.grid(axis="x", visible=False)
        axis.set_ylabel("normalised score")
        axis.set_title(", ".join(dict.fromkeys(row["dataset"] for row in rows)))
        return save(fig, pathlib.Path(run_dir) / "figures" / "scores.png")


def mask_patterns(path: str | os.PathLike, window: int = 8, slot: int = 3) -> pathlib.Path:
    """Draw which tokens the model sees: two training masks and every prompt.

    Args:
        path: the PNG file to write.
        window: T.
        slot: the current step of the prompts.

    Raises:
        UserError: the slot is not in the window.
    """
    if not 0 <= slot < window:
        raise UserError(f"slot {slot} is not in a window of {window} steps, 0 to {window - 1}")
    with rc_context(STYLE):
        fig = figure.Figure(figsize=(9.6, 5.4), layout="constrained")
        axes = fig.subplots(3, 3)
        for axis, panel in zip(axes.ravel(), _mask_panels(window, slot), strict=True):
            _mask(axis, *panel)
        for axis in axes[:, 0]:
            axis.set_yticks(range(len(MODALITIES)), MODALITIES)
        fig.legend(handles=_mask_legend(), loc="outside lower center", ncols=4)
        return save(fig, pathlib.Path(path))


def _panels(rows: Iterable[Mapping]) -> dict[str, dict[str, np.ndarray]]:
    """Sort rows into panel -> curve -> [points, 2] of steps and values."""
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
    """Panel and label of a metric, see `learning_curves`."""
    group, _, rest = name.partition("/")
    pattern, _, leaf = rest.rpartition("/")
    if group == "valid" and pattern:
        return f"validation: {leaf}", pattern
    if leaf in (*MODALITIES, "loss"):
        return (f"{group} losses", leaf) if positive else (name, leaf)
    return leaf or name, group


def _curves(axis: Axes, title: str, curves: Mapping[str, np.ndarray]) -> None:
    others = itertools.cycle((BLACK, PURPLE, SKY) if set(MODALITIES) & set(curves) else CYCLE)
    for name, points in curves.items():
        colour = MODALITY_COLOURS.get(name) or next(others)
        marker = "o" if len(points) == 1 else None
        axis.plot(*points.T, color=colour, lw=1.6, marker=marker, label=name)
    values = np.concatenate([points[:, 1] for points in curves.values()])
    if (values > 0).all():
        axis.set_yscale("log")
    elif np.abs(values).max() > HIDES * np.median(np.abs(values)):
        axis.set_yscale("symlog", linthresh=1.0)
    axis.set_title(title)
    axis.set_xlabel("gradient steps")
    axis.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axis.legend(fontsize=8)


def _score_columns(rows: Iterable[Mapping]) -> dict[str, np.ndarray]:
    """Sort rows into label -> scores of all episodes."""
    latest = {}
    for row in rows:
        target = row["target_return"]
        label = row["method"] if target is None else f"{row['method']}\nfor {target:.0f}"
        run = (row["seed"], row["step"], row["settings"].get("eval_seed"))
        latest.setdefault(label, {})[run] = row["normalized_scores"]
    return {label: np.concatenate(list(runs.values())) for label, runs in latest.items()}


def _score_column(axis: Axes, place: int, values: np.ndarray, colour: str) -> None:
    spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
    axis.scatter(place + spread, values, s=14, color=colour, alpha=0.45, lw=0)
    axis.plot([place - 0.28, place + 0.28], [values.mean()] * 2, color=colour, lw=2.5)
    axis.text(place + 0.31, values.mean(), f"{values.mean():.1f}", va="center", fontsize=9)


def _dataset_line(axis: Axes, rows: Iterable[Mapping]) -> None:
    means = {row.get("metrics", {}).get("dataset_mean_score") for row in rows} - {None}
    for mean in means:
        axis.axhline(mean, color=BLACK, lw=1, ls="--", label="mean of the data")
    if means:
        axis.legend(fontsize=8)


def _mask_panels(window: int, slot: int) -> Iterator[tuple]:
    """Yield title, visible, the modalities to predict, and the current step (None: no such)."""
    config = MaskConfig()
    weights = dict(config.modality_weights)
    for number, seed in enumerate(_TRAINING_SEEDS, start=1):
        key = jax.random.key(seed)
        visible = masks.random_autoregressive(key, window, config.fractions, weights)
        yield f"Training, draw {number}", visible, MODALITIES, None
    for name, title in _PROMPT_TITLES.items():
        yield title, masks.prompt(name, slot, window), masks.PREDICTS[name], slot


def _mask(
    axis: Axes, title: str, visible: Mapping, asked: Sequence[str], current: int | None
) -> None:
    window = len(visible[MODALITIES[0]])
    for y, name in enumerate(MODALITIES):
        for x, seen in enumerate(np.asarray(visible[name])):
            axis.add_patch(_token(x, y, name, bool(seen), name in asked))
    if current is not None:
        axis.add_patch(_current_frame(current, len(MODALITIES)))
    axis.set(xlim=(-0.6, window - 0.4), ylim=(len(MODALITIES) - 0.35, -0.65), yticks=[])
    axis.set_xticks(range(window))
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_title(title)


def _token(x: int, y: int, name: str, seen: bool, asked: bool) -> patches.Rectangle:
    colour = MODALITY_COLOURS[name]
    fill, edge = (colour, colour) if seen else (HIDDEN, colour if asked else HIDDEN)
    return patches.Rectangle((x - 0.41, y - 0.36), 0.82, 0.72, fc=fill, ec=edge, lw=1.5)


def _current_frame(slot: int, height: int) -> patches.Rectangle:
    corner = (slot - 0.5, -0.56)
    return patches.Rectangle(corner, 1.0, height + 0.12, fill=False, ec=BLACK, lw=1.3)


def _mask_legend() -> list[patches.Patch]:
    return [
        patches.Patch(fc=BLUE, ec=BLUE, lw=1.5, label="visible"),
        patches.Patch(fc=HIDDEN, ec=BLUE, lw=1.5, label="hidden, predicted"),
        patches.Patch(fc=HIDDEN, ec=HIDDEN, lw=1.5, label="hidden"),
        patches.Patch(fill=False, ec=BLACK, lw=1.3, label="current step"),
    ]


def save(fig: figure.Figure, path: str | os.PathLike) -> pathlib.Path:
    """Write a figure.

    Raises:
        UserError: the file is not to be a PNG file, or it cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != ".png":
        raise UserError(f"figures are PNG files, and {path} does not end in .png; rename it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, dpi=160, facecolor="white")
    except OSError as error:
        raise UserError(f"no figure can be written to {path} ({error}); choose another") from error
    return path
