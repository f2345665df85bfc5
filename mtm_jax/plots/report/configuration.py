"""Configurations as tables: what a preset does not say first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtm_jax.plots.report import blocks, evaluations
from mtm_jax.plots.report.run import Run

# They name the run and its place.
_NAMES = ("out", "run")


def of_runs(runs: Sequence[Run]) -> list:
    """Show what differs from the presets' defaults, what differs among runs, and, folded, all."""
    shown: list = [_changed(run) for run in runs]
    if len(runs) > 1:
        shown.append(_among(runs))
    return [*shown, *(_whole(run) for run in runs)]


def changed(run: Run) -> dict[str, tuple[Any, Any]]:
    """Find the settings that are not those of the run's preset: key -> default and own value.

    What "auto" stands for was chosen by the machine.
    """
    if run.defaults is None:
        return {}
    keys = [key for key in run.config if key not in _NAMES]
    pairs = {key: (run.defaults.get(key), run.config[key]) for key in keys}
    return {key: (old, new) for key, (old, new) in pairs.items() if old not in (new, "auto")}


def _changed(run: Run) -> blocks.Table | blocks.Text:
    if run.defaults is None:
        return blocks.Text(f"{run.name}: its preset is not known here, so nothing is compared.")
    found = changed(run)
    preset = run.config.get("preset")
    if not found:
        return blocks.Text(f"{run.name}: all settings are those of preset {preset}.")
    rows = [[key, *map(evaluations.written, pair)] for key, pair in found.items()]
    caption = f"{run.name}: settings that are not those of preset {preset}"
    return blocks.table(caption, ["setting", "preset", "run"], rows, words=3)


def _among(runs: Sequence[Run]) -> blocks.Table | blocks.Text:
    keys = dict.fromkeys(k for run in runs for k in run.config if k not in _NAMES)
    rows = []
    for key in keys:
        values = [run.config.get(key) for run in runs]
        if any(value != values[0] for value in values):
            rows.append([key, *map(evaluations.written, values)])
    if not rows:
        return blocks.Text("The runs have the same settings.")
    header = ["setting", *(run.name for run in runs)]
    return blocks.table("Settings in which the runs differ", header, rows, words=len(header))


def _whole(run: Run) -> blocks.Folded:
    rows = [[key, evaluations.written(value)] for key, value in run.config.items()]
    table = blocks.table(f"config.json of {run.name}", ["setting", "value"], rows, words=2)
    return blocks.Folded(f"All {len(rows)} settings of {run.name}", [table])
