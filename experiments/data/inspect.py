"""`python -m experiments.data inspect`: what is in a data set, as a report and a figure."""

from __future__ import annotations

import contextlib
import io
import logging
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import rich.box
import rich.console
import rich.table
from ml_collections import config_dict

from mtm_jax.data import inspection, sources
from mtm_jax.errors import UserError
from mtm_jax.types import Trajectories

_BLOCKS = " ▁▂▃▄▅▆▇█"
_BINS = 40
_WIDE = 1000  # columns; more than any table has


def main(config: config_dict.ConfigDict) -> None:
    """Load, print the report, draw the figure."""
    with _heard() as said:
        trajectories = load(config)
    found = inspection.inspect(trajectories)
    show(report(found))
    if found.returns:
        print(sketch("returns", inspection.returns(trajectories)))
    print(sketch("lengths", trajectories.lengths))
    for warning in (*said, *inspection.warnings(found)):
        print(f"note: {warning}")
    if config.figure:
        from mtm_jax.plots import data_sets

        path = config.figure.replace("NAME", slug(config))
        print(f"figure: {data_sets.histograms(trajectories, path)}")


def load(config: config_dict.ConfigDict) -> Trajectories:
    """Load the data set that SOURCE names.

    Raises:
        UserError: see `sources.load`; or SOURCE and `config.name` both name it.
    """
    name, source = sources.split(config.source)
    if name and config.name:
        raise UserError(
            f"{config.source} already names the data set; leave out --config.name={config.name}"
        )
    return sources.load(
        name or config.name,
        source,
        steps=config.steps or None,
        seed=config.seed,
        clip_actions=config.clip_actions,
    )


def report(found: inspection.Inspection) -> rich.table.Table:
    """Tabulate what was found."""
    table = rich.table.Table(box=rich.box.SIMPLE, show_header=False)
    table.title = f"{found.info.name} ({found.info.source})"
    for rows in (_episodes(found), _values(found), _arrays(found)):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    return table


def sketch(label: str, values: np.ndarray) -> str:
    """Draw a histogram in one line of text; every bin that is not empty shows."""
    counts, _ = np.histogram(values, bins=_BINS)
    heights = np.ceil(counts / counts.max() * (len(_BLOCKS) - 1)).astype(int)
    bars = "".join(_BLOCKS[h] for h in heights)
    return f"{label} {values.min():.5g} |{bars}| {values.max():.5g}"


def slug(config: config_dict.ConfigDict) -> str:
    """Name a file after SOURCE."""
    path = pathlib.Path(config.source).expanduser()
    text = path.resolve().stem if path.exists() else config.source
    if config.steps:
        text += f"-{config.steps}"
    if config.seed:
        text += f"-seed{config.seed}"
    return re.sub(r"[^\w.-]+", "-", text)


def show(table: rich.table.Table) -> None:
    """Print a table on stdout as wide as it is, in a terminal and in a file alike."""
    text = io.StringIO()
    console = rich.console.Console(file=text, width=_WIDE, markup=False, emoji=False)
    console.print(table)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Keep what is logged for the report; where an error follows, it is said on stderr first."""
    logger, messages = logging.getLogger("mtm_jax"), []
    before, kept = logger.handlers[:], _Kept(messages)
    logger.handlers[:] = [kept]
    try:
        yield messages
    except BaseException:
        for handler in before:
            for record in kept.records:
                handler.handle(record)
        raise
    finally:
        logger.handlers[:] = before


class _Kept(logging.Handler):
    """Appends messages to a list."""

    def __init__(self, messages: list[str]):
        super().__init__()
        self.messages, self.records = messages, []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.records.append(record)


def _episodes(found: inspection.Inspection) -> Iterator[tuple[str, str]]:
    info, lengths = found.info, found.lengths
    yield "evaluated in", info.env_id or "no simulator"
    yield "steps", f"{found.steps:,}"
    yield "episodes", f"{found.episodes:,}"
    if found.train is not None:
        valid = found.episodes - found.train
        yield "split of the data", f"{found.train:,} to train, {valid:,} to validate"
    yield (
        "lengths",
        f"{lengths.low:,.0f} to {lengths.high:,.0f}, mean {lengths.mean:,.1f} "
        f"(time limit {info.max_episode_steps:,})",
    )
    yield (
        "ends",
        f"{found.terminal:,} terminal, {found.timed_out:,} at the time limit, "
        f"{found.cut:,} cut before it",
    )
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found.modalities.items())
    yield "episodes that have", shares


def _values(found: inspection.Inspection) -> Iterator[tuple[str, str]]:
    yield "returns", _spread(found.returns)
    yield "normalised scores", _spread(found.scores)
    yield "rewards", _spread(found.rewards)
    bounds = f", {found.at_bounds:.2%} of them at a bound" if found.actions else ""
    yield "action values", _range(found.actions) + bounds
    yield "observed values", _range(found.observations)


def _arrays(found: inspection.Inspection) -> Iterator[tuple[str, str]]:
    for name, (shape, kind) in found.arrays.items():
        yield name, f"{kind} [{', '.join(map(str, shape))}]"


def _spread(spread: inspection.Spread | None) -> str:
    if spread is None:
        return "-"
    quartiles = (spread.quarter, spread.median, spread.three_quarters)
    middle = ", ".join(f"{q:.5g}" for q in quartiles)
    return f"{spread.low:.5g} to {spread.high:.5g}, quartiles {middle}; mean {spread.mean:.5g}"


def _range(values: tuple[float, float] | None) -> str:
    return f"{values[0]:.5g} to {values[1]:.5g}" if values else "-"
