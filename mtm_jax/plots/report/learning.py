"""Learning curves of runs: training and held-out losses in one panel for each quantity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtm_jax.plots import style
from mtm_jax.plots.report import blocks, panels
from mtm_jax.plots.report.run import Run
from mtm_jax.types import MODALITIES

_HELD_OUT = "valid/train_masks"  # held-out windows under masks like those of training
_TITLES = {"nll": "actions, negative log-likelihood"}


def curve(run: Run, metric: str) -> np.ndarray:
    """Collect a metric of a run, steps and values, [n, 2]."""
    pairs = [(row["step"], row[metric]) for row in run.metrics if metric in row]
    return np.array(pairs, float).reshape(-1, 2)


def of_runs(runs: Sequence[Run]) -> list:
    """Draw the losses of all runs, and tabulate the last held-out ones under each mask."""
    trained = [run for run in runs if run.metrics]
    drawn = [_panel(trained, leaf) for leaf in (*MODALITIES, "nll")] if trained else []
    figures = [figure for figure in drawn if figure]
    found: list = [blocks.Figures(figures, _legend(trained))] if figures else []
    tables = [table for table in map(_held_out, trained) if table]
    found += [blocks.Folded("Held-out losses under each mask", tables)] if tables else []
    for run in runs:
        if run not in trained:
            text = f"{run.name} has no metrics: it has not been trained, or they were removed."
            found.append(blocks.Missing(text, _training(run)))
    return found


def _training(run: Run) -> str:
    return f"make pretrain ENV={run.config['env']} PRESET={run.config['preset']}"


def _legend(runs: Sequence[Run]) -> list[tuple[str, bool, str]]:
    parts = {"training": False, "held-out windows, masked as in training": True}
    if len(runs) == 1:
        return [(_colour(0), dashed, text) for text, dashed in parts.items()]
    legend = [(_colour(k), False, run.name) for k, run in enumerate(runs)]
    return legend + [("currentColor", dashed, text) for text, dashed in parts.items()]


def _colour(k: int) -> str:
    return style.CYCLE[k % (len(style.CYCLE) - 1)]  # its last one is not seen on a dark page


def _panel(runs: Sequence[Run], leaf: str) -> blocks.Figure | None:
    """Draw one quantity of all runs; None where none has it."""
    lines, last = [], []
    for k, run in enumerate(runs):
        for group in ("train", _HELD_OUT):
            points = curve(run, f"{group}/{leaf}")
            if len(points):
                lines.append(panels.Curve(points, _colour(k), dashed=group == _HELD_OUT))
        if len(curve(run, f"train/{leaf}")):
            last.append(f"{run.name} ends at {curve(run, f'train/{leaf}')[-1, 1]:.3g}")
    if not lines:
        return None
    title = _TITLES.get(leaf, leaf)
    alt = (
        f"Loss of {title} over gradient steps, in training and on held-out data: {'; '.join(last)}"
    )
    return blocks.Figure(panels.curves(f"curve-{leaf}", title, lines), alt)


def _held_out(run: Run) -> blocks.Table | None:
    """Tabulate the last held-out losses of a run: a line per mask; None where there are none."""
    row = next((r for r in reversed(run.metrics) if any(k.startswith("valid/") for k in r)), None)
    if row is None:
        return None
    keys = [key.split("/")[1:] for key in row if key.startswith("valid/") and key.count("/") == 2]
    leaves = [leaf for leaf in (*MODALITIES, "nll") if any(k[1] == leaf for k in keys)]
    lines = []
    for pattern in dict.fromkeys(key[0] for key in keys):
        values = [row.get(f"valid/{pattern}/{leaf}") for leaf in leaves]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        lines.append([pattern.replace("_", " "), *cells])
    caption = f"{run.name}: held-out losses at step {row['step']:,}, by what is masked"
    return blocks.table(caption, ["mask", *leaves], lines) if lines else None
