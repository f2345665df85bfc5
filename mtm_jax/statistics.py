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


def mean_interval(
    runs: Sequence[Sequence[float]], draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate the mean score of a method with a bootstrap interval.

    Runs are drawn with replacement, then episodes within each: episodes of one run are not
    independent of each other. A single run is taken as it is, and only its episodes are drawn.

    Args:
        runs: scores of the episodes of each run (each training seed).
        draws: how often to resample.
        level: share of the resamples between the bounds.
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
    resampled = np.take_along_axis(means, chosen, axis=0).mean(0)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean([a.mean() for a in arrays])), float(low), float(high))


def _episode_means(scores: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of resampled episodes, [draws]."""
    return scores[rng.integers(0, len(scores), (draws, len(scores)))].mean(1)
