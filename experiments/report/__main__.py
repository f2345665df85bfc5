"""Write a page about one run or several, or tabulate the results of many.

    python -m experiments.report RUN
    python -m experiments.report RUN OTHER_RUN --config.page=FILE.html
    python -m experiments.report --config.results=results/m3pc_offline
    python -m experiments.report --config.results=FILE --config.studies=True

Of RUN folders it writes one HTML file that needs no other file and no network: scores with
intervals, every episode, learning curves, predicted returns against what followed, imagined and
real rollouts, masks, videos, configuration and versions; several runs side by side, with paired
differences where they played the same episodes.

Of results (a file, or all *.jsonl files below a folder) it prints a table: a line per data set, a
column per method, and sums. A run is a training seed, of which the last step counts. Cells are
means with 95% bootstrap intervals over runs and episodes; the last line compares the sums with
those of the method `baseline`. Rows of one method on one data set must have been evaluated with the
same settings. Rows of experiments.ablation are left out; studies=True shows them instead, a line
per value with the paired difference from the default.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from ml_collections import config_dict

from experiments.report import folders, tables
from experiments.runtime import cli, runs
from mtm_jax.errors import UserError
from mtm_jax.plots.report import page, sections


def main(config: config_dict.ConfigDict) -> None:
    """Write the page of the runs, or print the table of the results."""
    if bool(config.runs) == bool(config.results):
        what = "no results were named" if not config.runs else "runs and results were both named"
        raise UserError(
            f"{what}; give RUN folders for a page, or --config.results=FOLDER or FILE for a table"
        )
    if config.results:
        tables.show(config)
    else:
        write(config)


def write(config: config_dict.ConfigDict) -> None:
    """Write the page.

    Raises:
        UserError: a folder is no run, a file in it is damaged, or the page cannot be written.
    """
    found = folders.read([pathlib.Path(run) for run in config.runs])
    path = pathlib.Path(config.page or (found[0].path / "report.html"))
    text = page.render(
        *_heading([run.name for run in found]), sections.of_runs(found, config.baseline)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_text(path, text)
    except OSError as error:
        raise UserError(
            f"no page can be written to {path} ({error}); choose another file with --config.page"
        ) from error
    cli.say(f"page: {path} ({len(text.encode()) / 1e6:.1f} MB)")


def _heading(names: Sequence[str]) -> tuple[str, str]:
    if len(names) == 1:
        return names[0], "Report of a run of mtm_jax"
    return f"{len(names)} runs", f"Report of runs of mtm_jax: {', '.join(names)}"


def spell_out(argv: Sequence[str]) -> list[str]:
    """Turn `RUN ...` into `--config.runs=('RUN', ...)`; a flag without "=" keeps the next word."""
    words, flags, pending = [], [], False
    for arg in argv:
        (flags if pending or arg.startswith("-") else words).append(arg)
        pending = not pending and bool(re.fullmatch(r"--?config(\.[^=]*)?", arg))
    return [f"--config.runs={tuple(words)!r}", *flags] if words else flags


if __name__ == "__main__":
    cli.run(main, spell_out=spell_out)
