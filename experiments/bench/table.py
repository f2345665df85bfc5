"""The table of `experiments.bench`."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

from experiments.bench import scaling
from mtm_jax.errors import UserError

_COLUMNS = ("", "settings", "time", "per s", "GFLOP/s", "share", "MB", "compiled", "to first")
_NAMES = {
    "width": "width {}",
    "batch_size": "batch {}",
    "window": "T {}",
    "candidates": "N {}",
    "horizon": "h {}",
    "environments": "{} envs",
    "workers": "{} workers",
    "seeds": "{} seeds",
}
_WIDTH = 110


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read what an earlier run wrote.

    Raises:
        UserError: the file does not hold results of this program.
    """
    try:
        report = json.loads(path.read_text())
        if all("section" in row for row in report["rows"]):
            return report
        raise ValueError("it was written by an earlier version")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no results of this program ({error})") from error


def show(report: Mapping[str, Any]) -> None:
    """Print the rows by section, the meaning of the columns, and how times grow."""
    table = _table(_COLUMNS, wrapped=1)
    rows = report["rows"]
    for k, row in enumerate(rows):
        last = k + 1 == len(rows) or rows[k + 1]["section"] != row["section"]
        table.add_row(*_cells(row), end_section=last)
    table.caption = caption(report)
    _print(table)
    if grown := scaling.growths(rows):
        _print(_growth_table(grown))


def caption(report: Mapping[str, Any]) -> str:
    """Explain the columns and the shares, summarise the rows, and say what was left out."""
    machine = report["machine"]
    rates = ", ".join(
        f"{rate:.0f} GFLOP/s in {dtype} matmuls of size {machine['product_sizes'][dtype]}"
        for dtype, rate in machine["product_gflops"].items()
    )
    parts = [
        f"{machine['versions']['device']}, {machine['cores']} cores of {machine['cpu']}: {rates}, "
        "measured between the calls; share is relative to these.",
        "time: of a step, update or decision; per s: of these, over all environments; MB: "
        "temporaries and arguments; compiled: in this time, with others side by side; to first: "
        "time relative to the first program of its loop.",
    ]
    parts += [f"{sentence}." for sentence in scaling.sentences(report["rows"])]
    parts += [f"Left out: {reason}." for reason in report["left_out"]]
    return "\n".join(parts)


def _growth_table(grown: Sequence[scaling.Growth]) -> rich.table.Table:
    table = _table(("time of", "grows with", "from", "to", "exponent"), wrapped=0)
    for growth in grown:
        (low, first), (high, last) = growth.points[0], growth.points[-1]
        ends = (f"{low}: {_time(first)}", f"{high}: {_time(last)}")
        power = f"{growth.exponent:.2f}"
        table.add_row(growth.what, growth.axis.replace("_", " "), *ends, power)
    table.caption = "Exponents of power laws, fitted to the upper half of the points."
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    counted = row["multiply_adds"] > 0
    return [
        label(row),
        _settings(row),
        _time(row["seconds"]),
        f"{row['per_second']:.{1 if row['per_second'] >= 10 else 2}f}",
        f"{row['gflops']:.1f}" if counted else "",
        f"{100 * row['share']:.0f}%" if counted else "",
        "" if row["bytes"] is None else f"{1e-6 * row['bytes']:.{1 if row['bytes'] < 1e8 else 0}f}",
        "" if row.get("compile_seconds") is None else f"{row['compile_seconds']:.1f} s",
        "" if row["ratio_to_first"] is None else f"{row['ratio_to_first']:.3g}x",
    ]


def label(row: Mapping[str, Any]) -> str:
    """Name the program of a row."""
    if row["section"] == "parts" and row["program"]:
        return f"  {row['program']}"
    dtype = " bf16" if row["compute_dtype"] == "bfloat16" else ""
    return " ".join(filter(None, (row["what"], row["program"]))) + dtype


def describe(name: Mapping[str, Any]) -> str:
    """Name the program of a row with its settings."""
    return f"{label(name).strip()} with {_settings(name)}"


def _settings(row: Mapping[str, Any]) -> str:
    told = {k: row[k] for k in _NAMES if row[k] is not None and (k, row[k]) != ("environments", 1)}
    return ", ".join(_NAMES[k].format(value) for k, value in told.items())


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _table(columns: Sequence[str], wrapped: int) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, caption_justify="left", padding=(0, 1, 0, 0))
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < 2 else "right", no_wrap=k != wrapped)
    return table


def _print(table: rich.table.Table) -> None:
    console = rich.console.Console()
    console.width = console.width if console.is_terminal else _WIDTH
    console.print(table)
