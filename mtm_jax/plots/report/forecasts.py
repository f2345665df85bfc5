"""Calibration: what plans predicted for the rest of an episode against what followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtm_jax.plots.report import blocks, panels
from mtm_jax.plots.report.run import Run


def returns(plans: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Compare predicted returns to go with what followed, [k] each, or [k - 1].

    Of an episode that ended, both count to its end. Of one that was cut short, both count to the
    last plan: its predicted value is subtracted from those before, and it is left out.

    Args:
        plans: see `imagination.forecasts`, and the `discount` of the values.
    """
    starts, values = np.array(plans["starts"]), np.array(plans["values"], float)
    rewards, discount = np.array(plans["rewards"], float), plans["discount"]
    end = len(rewards) if plans["ended"] else starts[-1]
    followed = [_discounted(rewards[start:end], discount) for start in starts]
    if plans["ended"]:
        return values, np.array(followed)
    later = values[-1] * discount ** (end - starts)
    return (values - later)[:-1], np.array(followed[:-1])


def _discounted(rewards: np.ndarray, discount: float) -> float:
    return float((rewards * discount ** np.arange(len(rewards))).sum())


def of_run(run: Run, k: int) -> list:
    """Draw and tabulate both comparisons of a run: returns to go, and rewards of plans."""
    plans = run.plans
    discount = plans["discount"]
    to = "the end" if plans["ended"] else "the last plan"
    to += ", discounted" if discount < 1 else ""
    imagined, real = (np.array(plans[key], float) for key in ("imagined", "real"))
    pairs = {f"rewards to {to}": returns(plans), "rewards of a plan": (imagined, real)}
    pairs = {title: pair for title, pair in pairs.items() if len(pair[0])}
    figures = [
        blocks.Figure(panels.calibration(f"calibration{k}-{n}", title, *pair), _alt(title, *pair))
        for n, (title, pair) in enumerate(pairs.items())
    ]
    lines = [[title, *_summary(*pair)] for title, pair in pairs.items()]
    header = ["compared", "plans", "predicted, mean", "followed, mean", "mean error", "RMS error"]
    how = f", values with a discount of {discount:g}" if discount < 1 else ""
    caption = f"{run.name}: {plans['method']} at step {plans['step']:,} in one episode{how}"
    table, shown = blocks.table(caption, header, lines), blocks.Figures(figures)
    return [table, shown, *([] if plans["ended"] else [_cut(len(plans["rewards"]))])]


def _cut(steps: int) -> blocks.Text:
    return blocks.Text(
        f"The recording stopped after {steps} steps, before the episode ended. Up to its last "
        "plan, rewards are predicted by how much the predicted return to go falls: from a plan's "
        "own to that of the last. A return to go that rises on the way predicts a negative sum."
    )


def _summary(predicted: np.ndarray, followed: np.ndarray) -> list[str]:
    error = predicted - followed
    means = f"{predicted.mean():,.1f}", f"{followed.mean():,.1f}", f"{error.mean():+,.1f}"
    return [str(len(error)), *means, f"{np.sqrt(np.square(error).mean()):,.1f}"]


def _alt(title: str, predicted: np.ndarray, followed: np.ndarray) -> str:
    means = f"{predicted.mean():.1f} predicted and {followed.mean():.1f} followed on average"
    return f"Predicted {title} against what followed, {len(predicted)} plans: {means}"
