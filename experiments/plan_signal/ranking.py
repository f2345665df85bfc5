"""The ranking instrument of `experiments.plan_signal`: do higher utilities mean higher returns?"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats as scipy_stats

from experiments.plan_signal import simulators as simulators_lib
from mtm_jax import tokens
from mtm_jax.agents.actor import Actor
from mtm_jax.io import progress
from mtm_jax.planning import forward, scoring

# Metrics that are summed over the moments; all others are averaged.
COUNTS = ("flat_utilities", "flat_returns")


def ranking(
    actor: Actor,
    simulators: simulators_lib.Simulators,
    moments: Sequence[simulators_lib.Moment],
    steps_after: int,
) -> dict[str, float]:
    """Execute every candidate at every moment; compare utilities with what they earn.

    Args:
        actor: makes the plans; each moment has candidates of its own.
        simulators: one per candidate.
        moments: states to plan at.
        steps_after: steps of the policy after each candidate.

    Returns:
        Averages of `compare` over the moments, their standard errors as `*_error`, `COUNTS`, and
        `calibration`.
    """
    found: dict[str, list[float]] = {}
    pairs = []
    with progress.progress(len(moments), "executing candidates") as bar:
        for k, moment in enumerate(moments):
            explained = actor.explain(moment.memory._replace(decisions=k))
            plan = jax.tree.map(lambda x: np.asarray(x[0]), explained)
            real = simulators_lib.execute(simulators, moment, plan.candidates, steps_after)
            for name, value in compare(plan, real, actor.agent.stats["states"]).items():
                found.setdefault(name, []).append(value)
            pairs.append((plan.utilities, real.returns))
            bar.update(k + 1)
    counts = {name: int(sum(found.pop(name))) for name in COUNTS}
    errors = {f"{k}_error": float(np.std(v) / np.sqrt(len(v))) for k, v in found.items()}
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return means | errors | counts | calibration(pairs)


def compare(plan: forward.Plan, real: simulators_lib.Real, stats: tokens.Stats) -> dict[str, float]:
    """Compare one plan's candidates with what they did; see `experiments.plan_signal`.

    Args:
        plan: of N candidates over h steps.
        real: what they did.
        stats: of the states, whose normalised differences are compared.
    """
    earned, before = real.returns, plan.candidates.shape[1] - 1
    predicted, true = (tokens.encode(stats, x) for x in (plan.rollout.states, real.states))
    ahead = {
        f"states_explained_{n}": explained(np.asarray(predicted[:, n]), np.asarray(true[:, n]))
        for n in range(1, before + 1)
    }
    # The value of the last step takes the place of its reward.
    rewards = (x[:, :before].sum(1, keepdims=True) for x in (plan.rollout.rewards, real.rewards))
    return ahead | {
        "rewards_explained": explained(*rewards),
        "rank_correlation": rank_correlation(plan.utilities, earned),
        "flat_utilities": float(flat(plan.utilities)),
        "flat_returns": float(flat(earned)),
        "gain": float(plan.weights @ earned - earned.mean()),
        "top_gain": float(earned[np.argmax(plan.utilities)] - earned.mean()),
        "best_gain": float(earned.max() - earned.mean()),
        "spread": float(earned.std()),
        "predicted_spread": float(plan.utilities.std()),
        "effective_candidates": float(1.0 / (plan.weights**2).sum()),
    }


def calibration(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Fit a line to real returns against utilities, both in raw units.

    The slope is fitted to differences from the mean of each moment: 1 = a utility difference of x
    means a return difference of x. Zero where all utilities are flat.

    Args:
        pairs: utilities and returns of the candidates, [N] each, of every moment.

    Returns:
        slope, intercept of the means over the moments, and the slope's standard error.
    """
    centred = [
        (np.zeros(len(u)) if flat(u) else u - np.mean(u, dtype=float), y - y.mean())
        for u, y in pairs
    ]
    squares = sum(float(u @ u) for u, _ in centred)
    slope = sum(float(u @ y) for u, y in centred) / squares if squares > 0 else 0.0
    off = [float(u @ (y - slope * u)) for u, y in centred]  # moments are independent
    intercepts = [float(y.mean() - slope * np.mean(u, dtype=float)) for u, y in pairs]
    return {
        "calibration_slope": slope,
        "calibration_slope_error": float(np.linalg.norm(off)) / squares if squares > 0 else 0.0,
        "calibration_intercept": float(np.mean(intercepts)),
    }


def explained(predicted: np.ndarray, real: np.ndarray) -> float:
    """Share of the variance between candidates that is predicted, [N, D] each; 1 at best.

    Differences from the mean candidate are compared: a common error leads no choice astray.
    Zero where candidates do not differ.
    """
    difference, truth = predicted - predicted.mean(0), real - real.mean(0)
    total = float((truth**2).sum())
    return 1.0 - float(((difference - truth) ** 2).sum()) / total if total > 0 else 0.0


def rank_correlation(utilities: np.ndarray, earned: np.ndarray) -> float:
    """Spearman's correlation; zero where either ranks nothing."""
    if flat(utilities) or flat(earned):
        return 0.0
    return float(scipy_stats.spearmanr(utilities, earned).statistic)


def flat(values: np.ndarray) -> bool:
    """Say whether a planner would take these for one value, but for rounding."""
    return not np.any(scoring.standardise(jnp.asarray(values, jnp.float32)))
