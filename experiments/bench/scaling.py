"""The summary of `experiments.bench`: how times grow with each setting, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.bench import workloads

_FEWEST = 3  # points of a curve
GOAL = 0.03  # share of a training step that the sampling of its windows may take


class Growth(NamedTuple):
    """How the time of one program grows with one of its settings."""

    what: str
    axis: str
    points: list[tuple[int, float]]  # (setting, seconds), in order
    exponent: float  # of a power law fitted to the upper half of the points


def growths(rows: Sequence[Mapping[str, Any]]) -> list[Growth]:
    """Find all curves among the rows: at least three points that differ in one setting only."""
    found = {}
    for row in rows:
        if row["section"] in ("peer", "parts", "presets"):
            continue  # other programs, or repetitions
        for axis in workloads.AXES:
            if row[axis] is not None:
                fixed = [(a, row[a]) for a in workloads.AXES if a != axis]
                named = [(key, row[key]) for key in ("what", "program", "compute_dtype")]
                curve = found.setdefault((axis, *named, *fixed), {})
                curve[row[axis]] = row["seconds"]
    return [
        Growth(_describe(dict(key[1:])), key[0], sorted(curve.items()), exponent(curve))
        for key, curve in found.items()
        if len(curve) >= _FEWEST
    ]


def exponent(curve: Mapping[int, float]) -> float:
    """Fit time = c x^k to the upper half of the points, at least two of them; return k."""
    points = sorted(curve.items())
    upper = np.log(points[-max(2, -(-len(points) // 2)) :])
    return float(np.polyfit(upper[:, 0], upper[:, 1], 1)[0])


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """State the share of sampling, the times of whole trainings and the comparison with PyTorch."""
    found = []
    shares = [r["ratio_to_first"] for r in rows if r["what"] == "windows"]
    if shares:
        met = "met" if max(shares) < GOAL else "missed"
        found.append(
            f"Sampling windows takes {100 * min(shares):.1f} to {100 * max(shares):.1f}% of a "
            f"training step; the goal of less than {100 * GOAL:.0f}% is {met}"
        )
    for row in rows:
        if steps := row.get("whole_training_steps"):
            hours = steps * row["seconds"] / 3600
            found.append(f"A training of {row['what']} is {steps} steps: {hours:.2g} hours")
    for row in rows:
        if row["section"] == "seeds" and row["ratio_to_first"]:
            found.append(
                f"{row['seeds']} seeds of {row['what']} in one program take "
                f"{row['ratio_to_first']:.2f} times as long as one"
            )
    ratios = [r["ratio_to_first"] for r in rows if r["section"] == "peer" and r["ratio_to_first"]]
    if ratios:
        found.append(
            f"PyTorch takes {min(ratios):.2f} to {max(ratios):.2f} times as long as this package"
        )
    return found


def _describe(settings: Mapping[str, Any]) -> str:
    program = f" {settings['program']}" if settings["program"] else ""
    dtype = " bf16" if settings["compute_dtype"] == "bfloat16" else ""
    axes = [f"{a.replace('_', ' ')} {settings[a]}" for a in workloads.AXES if settings.get(a)]
    return f"{settings['what']}{program}{dtype}" + (f" ({', '.join(axes)})" if axes else "")
