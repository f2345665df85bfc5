"""The table of an arena: sums over data sets, spread over seeds, paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import rich.box
import rich.table
from ml_collections import config_dict

from configs import arena as page
from mtm_jax.plots import statistics

# (recipe, acting) -> data set -> scores [seeds, episodes]
Scores = dict[tuple[str, str], dict[str, np.ndarray]]


def collect(rows: Sequence[Mapping], config: config_dict.ConfigDict) -> Scores:
    """Arrange the rows of the wanted seeds and episodes; incomplete ones are left out."""
    seeds = range(config.seed, config.seed + config.seeds)
    found: dict[tuple[str, str], dict[str, dict[int, list]]] = {}
    for row in rows:
        settings = row["settings"]
        asked = settings["eval_seed"] == config.eval_seed and row["seed"] in seeds
        if asked and len(row["normalized_scores"]) == config.episodes:
            entry = found.setdefault((settings["recipe"], settings["acting"]), {})
            entry.setdefault(row["dataset"], {})[row["seed"]] = row["normalized_scores"]
    return {
        key: {
            name: np.array([by_seed[seed] for seed in seeds])
            for name, by_seed in by_data.items()
            if len(by_seed) == len(seeds)
        }
        for key, by_data in found.items()
    }


def table(scores: Scores, config: config_dict.ConfigDict) -> rich.table.Table:
    """Tabulate every recipe and acting that was asked for and played."""
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in ("recipe", "acting"):
        grid.add_column(column, no_wrap=True)
    heads = ("data sets", "sum", "seeds ±", f"- {config.baseline}", "- other acting")
    for column in (*heads, *config.names):
        grid.add_column(column, justify="right")
    for recipe in config.recipes:
        for acting in config.actings:
            if own := scores.get((recipe, acting)):
                grid.add_row(recipe, acting, *_cells(scores, own, recipe, acting, config))
    return grid


def _cells(
    scores: Scores,
    own: Mapping[str, np.ndarray],
    recipe: str,
    acting: str,
    config: config_dict.ConfigDict,
) -> list[str]:
    names = [name for name in config.names if name in own]
    parts = [own[name] for name in names]
    against = page.ACTINGS[acting][2]
    base = scores.get((config.baseline, acting)) if recipe != config.baseline else None
    other = scores.get((recipe, against))
    return [
        str(len(names)),
        total(parts).text(),
        f"{spread(parts):.1f}",
        difference(own, base),
        f"{difference(own, other)} ({against})" if other else "-",
        *(f"{own[name].mean():.1f}" if name in own else "-" for name in config.names),
    ]


def total(parts: Sequence[np.ndarray]) -> statistics.Interval:
    """Sum the mean scores of data sets, [seeds, episodes] each, with an interval."""
    draws = sum(statistics.resampled_means(part, seed=(0, k)) for k, part in enumerate(parts))
    return statistics.interval(sum(float(part.mean()) for part in parts), draws)


def spread(parts: Sequence[np.ndarray]) -> float:
    """Measure how much the sum over data sets differs from seed to seed (standard deviation)."""
    sums = sum(part.mean(1) for part in parts)
    return float(np.std(sums, ddof=1)) if len(sums) > 1 else 0.0


def difference(own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray] | None) -> str:
    """Write the difference of two sums, paired by data set, seed and episode."""
    names = [name for name in own if name in (other or {})]
    if not names:
        return "-"
    sign = total([own[name] - other[name] for name in names]).text("+")
    return sign if len(names) == len(own) else f"{sign} on {len(names)}"
