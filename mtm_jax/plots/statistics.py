"""How sure a mean of scores is: intervals by resampling, runs first and then their episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtm_jax.errors import UserError


class Interval(NamedTuple):
    """A mean with the bounds that 95% of its resamples fall into."""

    mean: float
    low: float
    high: float

    def text(self, sign: str = "", unit: str = "") -> str:
        """Write it as "mean [low, high]", with `sign` "+" also before positive numbers."""
        mean, low, high = (f"{value:{sign}.1f}" for value in self)
        return f"{mean}{unit} [{low}, {high}]"


def mean_interval(
    runs: Sequence[Sequence[float]], draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate the mean score of a method with a bootstrap interval.

    Args:
        runs, draws, seed: see `resampled_means`.
        level: share of the resamples between the bounds.

    Raises:
        UserError: there is no run, or one without episodes.
    """
    resampled = resampled_means(runs, draws, seed)
    return interval(mean(runs), resampled, level)


def mean(runs: Sequence[Sequence[float]]) -> float:
    """Average the scores of each run, then the runs."""
    return float(np.mean([np.mean(scores) for scores in runs]))


def resampled_means(
    runs: Sequence[Sequence[float]], draws: int = 2000, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Resample the mean score of a method, [draws].

    Runs are drawn with replacement, then episodes within each: episodes of one run are not
    independent of each other. A single run is taken as it is, and only its episodes are drawn.
    With one seed, methods of as many runs and episodes draw the same ones: differences are paired.

    Args:
        runs: scores of the episodes of each run (each training seed).
        draws: how often to resample.
        seed: of the resampling.

    Raises:
        UserError: there is no run, or one without episodes.
    """
    if len(runs) == 0 or not all(len(scores) for scores in runs):
        raise UserError(f"an interval needs scores, and there are {[len(r) for r in runs]}")
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(scores, float) for scores in runs]
    means = np.stack([_episode_means(scores, draws, rng) for scores in arrays])  # [runs, draws]
    chosen = rng.integers(0, len(runs), means.shape)
    return np.take_along_axis(means, chosen, axis=0).mean(0)


def interval(mean: float, resampled: np.ndarray, level: float = 0.95) -> Interval:
    """Bound a mean by its resamples, [draws]."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def _episode_means(scores: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of resampled episodes, [draws]."""
    return scores[rng.integers(0, len(scores), (draws, len(scores)))].mean(1)
