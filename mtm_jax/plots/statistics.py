"""Bootstrap intervals of mean scores: runs are resampled first, then the episodes within each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtm_jax.errors import UserError


class Interval(NamedTuple):
    """A mean with the bounds of its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    def text(self, sign: str = "", unit: str = "") -> str:
        """Format as "mean [low, high]"; `sign` "+" also marks positive numbers."""
        mean, low, high = (f"{value:{sign}.1f}" for value in self)
        return f"{mean}{unit} [{low}, {high}]"


def mean_interval(
    runs: Sequence[Sequence[float]], draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate the mean score of a method with a bootstrap interval.

    Args:
        runs, draws, seed: see `resampled_means`.
        level: coverage of the interval.

    Raises:
        UserError: there is no run, or a run has no episodes.
    """
    resampled = resampled_means(runs, draws, seed)
    return interval(mean(runs), resampled, level)


def mean(runs: Sequence[Sequence[float]]) -> float:
    """Average over the episodes of each run, then over the runs."""
    return float(np.mean([np.mean(scores) for scores in runs]))


def resampled_means(
    runs: Sequence[Sequence[float]], draws: int = 2000, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Resample the mean score of a method, [draws].

    Runs are drawn with replacement, then episodes within each, because the episodes of a run are
    not independent of each other. Of a single run only the episodes are drawn. Methods with equal
    numbers of runs and episodes draw the same ones under the same seed, so that their differences
    are paired.

    Args:
        runs: scores of the episodes of each run (each training seed).
        draws: number of resamples.
        seed: seed of the resampling.

    Raises:
        UserError: there is no run, or a run has no episodes.
    """
    if len(runs) == 0 or not all(len(scores) for scores in runs):
        raise UserError(f"an interval needs scores, and the runs have {[len(r) for r in runs]}")
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(scores, float) for scores in runs]
    means = np.stack([_episode_means(scores, draws, rng) for scores in arrays])  # [runs, draws]
    chosen = rng.integers(0, len(runs), means.shape)
    return np.take_along_axis(means, chosen, axis=0).mean(0)


def interval(mean: float, resampled: np.ndarray, level: float = 0.95) -> Interval:
    """Compute the interval of a mean from its resamples, [draws]."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def _episode_means(scores: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the means of resampled episodes, [draws]."""
    return scores[rng.integers(0, len(scores), (draws, len(scores)))].mean(1)
