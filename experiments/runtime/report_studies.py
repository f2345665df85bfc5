"""Tables of rows of `experiments.ablation`, which vary one option of the plans (a study)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich.box
import rich.table

from mtm_jax.errors import UserError
from mtm_jax.plots import scores, statistics


def of_studies(rows: Sequence[dict]) -> list[dict]:
    """Keep the rows of studies.

    Raises:
        UserError: there are none.
    """
    kept = [row for row in rows if "study" in row["settings"]]
    if not kept:
        raise UserError(
            "no row is from experiments.ablation; run it, or leave out --config.studies=True"
        )
    return kept


def with_plain(rows: Sequence[dict], studies: Sequence[dict]) -> list[dict]:
    """Add the default rows to each study, at the value that they have, and sort by value.

    A default row (one that varies nothing) is added where the study has its method and seed.

    Raises:
        UserError: the studies are of several data sets, which do not fit into one figure.
    """
    names = sorted({row["dataset"] for row in studies})
    if len(names) > 1:
        raise UserError(
            f"the studies are of {', '.join(names)}; to draw them, name a file of one data set"
        )
    plain = [r for r in rows if "study" not in r["settings"] and r["dataset"] == names[0]]
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
    """Tabulate the scores of each value of each study, with the difference from the default.

    Differences are paired over the seeds that both have: all values were evaluated on the same
    episodes.

    Args:
        rows: all rows, of any number of data sets, with the default ones.
        studies: `of_studies` of these rows.
    """
    methods = list(dict.fromkeys(row["method"] for row in studies))
    plain = [row for row in rows if "study" not in row["settings"]]
    plain = scores.by_seed(plain, lambda row: (row["dataset"], row["method"]))
    kind = scores.study_of
    found = scores.by_seed(studies, lambda row: (row["dataset"], *kind(row)))
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in (
        "data set",
        "option",
        *(part for m in methods for part in (f"{m} (runs)", "difference")),
    ):
        grid.add_column(column, justify="left" if column in ("data set", "option") else "right")
    for data in dict.fromkeys(data for data, *_ in found):
        cells = (c for m in methods for c in _cells(plain.get((data, m), {}), {}))
        grid.add_row(data, "default", *cells)
        for study, value in dict.fromkeys(key[1:3] for key in found if key[0] == data):
            runs = (
                (found.get((data, study, value, m), {}), plain.get((data, m), {})) for m in methods
            )
            cells = (c for seeds, others in runs for c in _cells(seeds, others))
            grid.add_row("", f"{study.strip('_')} {value}", *cells)
    return grid


def _cells(seeds: Mapping[int, Sequence[float]], plain: Mapping[int, Sequence[float]]) -> list[str]:
    """Write a mean with its interval and number of runs, and the difference from the default."""
    if not seeds:
        return ["-", ""]
    mean = statistics.mean_interval(list(seeds.values()))
    text = f"{mean.text()} ({len(seeds)})"
    both = sorted(set(seeds) & set(plain))
    if not both:
        return [text, ""]
    pairs = [[runs[seed] for seed in both] for runs in (seeds, plain)]
    draws = [statistics.resampled_means(runs) for runs in pairs]
    means = [statistics.mean(runs) for runs in pairs]
    found = statistics.interval(means[0] - means[1], draws[0] - draws[1])
    return [text, found.text("+")]
