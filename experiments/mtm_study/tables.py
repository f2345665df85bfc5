"""The tables and figures of the studies."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import rich.box
import rich.table
from ml_collections import config_dict

from configs import mtm_study as page
from mtm_jax.plots import curves, statistics
from mtm_jax.plots import scores as score_plots

# Data set -> (recipe, acting) -> scores or errors of each seed.
Found = dict[str, dict[tuple[str, str], list[list[float]]]]


def collect(rows: Sequence[Mapping], config: config_dict.ConfigDict) -> Found:
    """Arrange the rows that were asked for; what lacks a seed is left out."""
    seeds = range(config.seed, config.seed + config.seeds)
    asked = page.STUDIES[config.study].recipes
    keys = [(recipe, acting) for recipe in config.recipes for acting in asked[recipe]]
    by_seed: dict = {name: {key: {} for key in keys} for name in config.names}
    for row in rows:
        settings, key = row["settings"], (row["settings"]["recipe"], row["settings"]["acting"])
        values = row.get("errors") or row["normalized_scores"]
        episodes = settings.get("eval_seed"), len(values)
        wanted = "errors" in row or episodes == (config.eval_seed, config.episodes)
        if wanted and key in by_seed.get(row["dataset"], {}):
            by_seed[row["dataset"]][key][row["seed"]] = values
    found = {
        name: {
            key: [runs[seed] for seed in seeds]
            for key, runs in group.items()
            if all(seed in runs for seed in seeds)
        }
        for name, group in by_seed.items()
    }
    return {name: group for name, group in found.items() if group}


def scores(found: Found) -> rich.table.Table:
    """Tabulate the mean score of every recipe on every data set."""
    grid = _grid(("recipe", "acting"), tuple(found))
    for recipe, acting in dict.fromkeys(key for group in found.values() for key in group):
        cells = [_cell(group.get((recipe, acting))) for group in found.values()]
        grid.add_row(recipe, acting, *cells)
    return grid


def capabilities(found: Found) -> rich.table.Table:
    """Tabulate roles by models, with the figures of the paper beside them."""
    models = ("MLP", "specialised", "MTM")
    grid = _grid(("data set", "role"), (*models, *(f"paper: {model}" for model in models)))
    for name, group in found.items():
        for question in dict.fromkeys(acting for _, acting in group):
            role = question.removesuffix("_alone")
            recipes = f"mlp_{role}", f"only_{role}", "mtm"
            # An MLP sees no later action, whatever the question.
            keys = [(r, role if r.startswith("mlp") else question) for r in recipes]
            cells = [_cell(group.get(key), 3 if role in ("id", "fd") else 1) for key in keys]
            paper = page.PAPER.get(name, {}).get(question, ("-",) * 3)
            grid.add_row(name, LABELS[question], *cells, *paper)
    return grid


# What the rows are called, with the direction that is better.
LABELS = {
    "bc": "BC (score)",
    "rcbc": "RCBC (score)",
    "id": "ID (error)",
    "fd": "FD (error)",
    "fd_alone": "FD, later actions hidden (error)",
}


def _grid(left: Sequence[str], right: Sequence[str]) -> rich.table.Table:
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in left:
        grid.add_column(column, no_wrap=True)
    for column in right:
        grid.add_column(column, justify="right", no_wrap=True)
    return grid


def _cell(runs: Sequence[Sequence[float]] | None, digits: int = 1) -> str:
    if runs is None:
        return "-"
    mean, low, high = statistics.mean_interval(runs)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def draw(found: Found, study: page.Study, path: str | pathlib.Path) -> pathlib.Path:
    """Draw bars of the recipes, or a panel of curves for each data set."""
    if not study.axis:
        named = {
            name: {label: group[key] for label, key in study.bars.items() if key in group}
            for name, group in found.items()
        }
        return score_plots.bars(named, path)
    panels = {
        name: {
            label: {x: group[key] for x, key in line.items() if key in group}
            for label, line in study.curves.items()
        }
        for name, group in found.items()
    }
    return curves.draw(panels, study.axis, path)
