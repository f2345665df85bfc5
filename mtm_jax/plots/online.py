"""Figures of an online run: scores against environment steps, and the returns that it explored."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib import figure, rc_context, ticker

from mtm_jax.io import metrics, records, results
from mtm_jax.plots import style

PARTS = 3  # of a run, whose returns the histogram compares


def draw(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Draw what there is; yield the files, in `figures` of the run."""
    rows = read(folder / results.RESULTS_FILE)
    episodes = [r for r in read(folder / metrics.METRICS_FILE) if "online/return" in r]
    if rows or episodes:
        yield curve(rows, episodes, folder / "figures" / "online_curve.png")
    if episodes:
        yield histogram(episodes, folder / "figures" / "exploration_returns.png")


def read(path: pathlib.Path) -> list[dict]:
    """Read the rows of a file that need not be there."""
    return records.read_jsonl(path) if path.exists() else []


def curve(rows: Sequence[Mapping], episodes: Sequence[Mapping], path: pathlib.Path) -> pathlib.Path:
    """Draw evaluated returns, with standard errors, and those of exploring episodes."""
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(6.4, 3.8), layout="constrained")
        axis = fig.subplots()
        steps = [row["step"] for row in episodes]
        found = [row["online/return"] for row in episodes]
        axis.plot(steps, found, ".", color=style.GREY, ms=3, label="exploring episodes")
        methods = list(dict.fromkeys(row["method"] for row in rows))
        for method, colour in zip(methods, style.CYCLE, strict=False):
            own = sorted((r for r in rows if r["method"] == method), key=lambda r: r["step"])
            means = [np.mean(r["returns"]) for r in own]
            errors = [np.std(r["returns"]) / np.sqrt(len(r["returns"])) for r in own]
            at = [r["step"] for r in own]
            axis.errorbar(at, means, errors, color=colour, marker="o", capsize=3, label=method)
        axis.set_title("Return while finetuning online")
        axis.set_xlabel("environment steps")
        axis.set_ylabel("return of an episode")
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        fig.legend(fontsize=8, loc="outside lower center", ncols=1 + len(methods))
        return style.save(fig, path)


def histogram(episodes: Sequence[Mapping], path: pathlib.Path) -> pathlib.Path:
    """Draw the returns of exploring episodes, by thirds of the run (M3PC figure 4)."""
    found = np.array([row["online/return"] for row in episodes])
    parts = [part for part in np.array_split(found, PARTS) if len(part)]
    bins = np.linspace(found.min(), found.max() + 1e-6, 21)
    with rc_context(style.AXES):
        fig = figure.Figure(figsize=(6.4, 3.4), layout="constrained")
        axis = fig.subplots()
        for k, (part, colour) in enumerate(zip(parts, style.CYCLE, strict=False)):
            label = f"third {k + 1} of the run: {len(part)} episodes, mean {part.mean():.0f}"
            axis.hist(part, bins, color=colour, alpha=0.5, label=label)
        axis.set_title("Returns of exploring episodes")
        axis.set_xlabel("return")
        axis.set_ylabel("episodes")
        axis.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        fig.legend(fontsize=8, loc="outside lower center", ncols=1)
        return style.save(fig, path)
