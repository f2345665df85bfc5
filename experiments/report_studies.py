"""The table of `experiments.report` for rows of `experiments.ablation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich.box
import rich.table

from mtm_jax import score_figures, statistics
from mtm_jax.errors import UserError


def of_studies(rows: Sequence[dict]) -> list[dict]:
    """Keep the rows of studies.

    Raises:
        UserError: there are none, or they are of several data sets.
    """
    kept = [row for row in rows if "study" in row["settings"]]
    if not kept:
        raise UserError("no row is of a study; run experiments.ablation, or leave out studies=True")
    names = sorted({row["dataset"] for row in kept})
    if len(names) > 1:
        raise UserError(f"rows of studies are of {', '.join(names)}; name a file of one data set")
    return kept


def with_plain(rows: Sequence[dict], studies: Sequence[dict]) -> list[dict]:
    """Add to each study the rows that vary nothing, at the value that they have, in order.

    They join a study for the methods and seeds that it has.
    """
    (data,) = {row["dataset"] for row in studies}
    plain = [r for r in rows if "study" not in r["settings"] and r["dataset"] == data]
    joined = []
    for name in dict.fromkeys(row["settings"]["study"]["name"] for row in studies):
        found = [row for row in studies if row["settings"]["study"]["name"] == name]
        runs = {(row["method"], row["seed"]) for row in found}
        for row in plain:
            if (row["method"], row["seed"]) in runs:
                settings = row["settings"]
                study = {"name": name, "value": settings["plan"][name]}
                found.append(row | {"settings": settings | {"study": study}})
        numbers = all(isinstance(r["settings"]["study"]["value"], int | float) for r in found)
        order = (lambda r: r["settings"]["study"]["value"]) if numbers else (lambda r: 0)
        joined += sorted(found, key=order)
    return joined


def table(rows: Sequence[dict], studies: Sequence[dict]) -> rich.table.Table:
    """Tabulate each value of each study, and how far it is from the runs as they are.

    Differences are over the seeds that both have, and paired: every value played the same episodes.

    Args:
        rows: all rows; of them, those that vary nothing are compared with.
        studies: `of_studies` of them.
    """
    methods = list(dict.fromkeys(row["method"] for row in studies))
    (name,) = {row["dataset"] for row in studies}
    plain = [r for r in rows if "study" not in r["settings"] and r["dataset"] == name]
    plain = score_figures.by_seed(plain, lambda row: row["method"])
    found = score_figures.by_seed(studies, score_figures.study_of)
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in (name, "", *(part for m in methods for part in (m, "against as it is"))):
        grid.add_column(column, justify="left" if column in (name, "") else "right")
    if plain:
        grid.add_row("as it is", "", *(c for m in methods for c in _cells(plain.get(m, {}), {})))
    for study, value in dict.fromkeys((study, value) for study, value, _ in found):
        scores = ((m, found.get((study, value, m), {})) for m in methods)
        cells = (c for m, seeds in scores for c in _cells(seeds, plain.get(m, {})))
        grid.add_row(study.strip("_"), str(value), *cells)
    return grid


def _cells(seeds: Mapping[int, Sequence[float]], plain: Mapping[int, Sequence[float]]) -> list[str]:
    """Write a mean with its interval and runs, and the difference from the plain runs."""
    if not seeds:
        return ["-", ""]
    mean = statistics.mean_interval(list(seeds.values()))
    text = f"{mean.text()}, {len(seeds)} run{'s' if len(seeds) > 1 else ''}"
    both = sorted(set(seeds) & set(plain))
    if not both:
        return [text, ""]
    pairs = [[runs[seed] for seed in both] for runs in (seeds, plain)]
    draws = [statistics.resampled_means(runs) for runs in pairs]
    means = [statistics.mean(runs) for runs in pairs]
    found = statistics.interval(means[0] - means[1], draws[0] - draws[1])
    return [text, found.text("+")]
