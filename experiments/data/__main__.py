"""List, inspect, collect, convert and download data sets."""

from __future__ import annotations

import difflib
import inspect
import itertools
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import rich.box
import rich.table
from ml_collections import config_dict

from configs import data as data_config
from experiments.data import collect as data_collect
from experiments.data import convert as data_convert
from experiments.data import inspect as data_inspect
from experiments.runtime import cli, cli_help, config_files
from mtm_jax.data import catalogue, sources
from mtm_jax.data.d4rl import files as d4rl_files
from mtm_jax.data.minari import download as minari_download
from mtm_jax.errors import UserError
from mtm_jax.io import cache

_PROGRAM = "python -m experiments.data"
_SOURCES = "SOURCE is hopper-medium (built-in data), d4rl:hopper-medium, minari:ID or a path."


class Action(NamedTuple):
    """One thing that this program does."""

    run: Callable[[config_dict.ConfigDict], None]
    words: tuple[str, ...]  # the keys that arguments without a flag set, in order
    about: str
    example: str


def main(config: config_dict.ConfigDict) -> None:
    """Do what the configuration's action says."""
    action = ACTIONS[config.action]
    for key in action.words:
        if not config[key]:
            raise UserError(
                f"{config.action} needs {key.upper()}; write {usage(config.action)}, "
                f"for example {_PROGRAM} {action.example}"
            )
    action.run(config)


def spell_out(argv: Sequence[str]) -> list[str]:
    """Turn `ACTION WORD ...` into `--config=configs/data.py:ACTION --config.KEY=WORD ...`.

    Raises:
        UserError: there is no such action, or it does not take that many words.
    """
    words, flags = _separate(argv)
    if not words:
        return flags
    name, *values = words
    if name not in ACTIONS:
        close = difflib.get_close_matches(name, ACTIONS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown action {name!r}; choose one of {', '.join(ACTIONS)}{hint}")
    keys = ACTIONS[name].words
    if len(values) > len(keys):
        raise UserError(f"unexpected argument {values[len(keys)]!r}; write {usage(name)}")
    spelled = [f"--config.{key}={value}" for key, value in zip(keys, values, strict=False)]
    return [f"--config=configs/data.py:{name}", *spelled, *flags]


def usage(name: str) -> str:
    """Write the command of an action, with its arguments in capitals."""
    return " ".join([_PROGRAM, name, *(key.upper() for key in ACTIONS[name].words)])


def explain(path: str) -> str:
    """Write the help: of the action in `path`, which is FILE:ACTION, or of all."""
    name = path.partition(":")[2]
    options = "[--config.KEY=VALUE ...] [--debug] [--help]"
    if name:
        pairs = dict(cli_help.flatten(config_files.load(path)))
        pairs.pop("action")
        lines = cli_help.key_lines(pairs, inspect.getsource(data_config.ACTIONS[name]))
        action = ACTIONS[name]
        about = f"{action.about[0].upper()}{action.about[1:]}."
        return (
            f"{about} {_SOURCES if 'source' in action.words else ''}\n\n"
            f"usage: {usage(name)} {options}\n\nkeys:\n{lines}\n\n"
            f"example: {_PROGRAM} {action.example}"
        )
    width = max(map(len, map(usage, ACTIONS))) - len(_PROGRAM)
    lines = [f" {usage(a)[len(_PROGRAM) :]:<{width}}  {ACTIONS[a].about}" for a in ACTIONS]
    examples = [f"  {_PROGRAM} {action.example}" for action in ACTIONS.values()]
    return "\n".join(
        [
            f"{__doc__}\n\nusage: {_PROGRAM} ACTION [ARGUMENTS] {options}\n\nactions:",
            *lines,
            f"\n{_SOURCES}\n{_PROGRAM} ACTION --help lists the keys of an action.\n\nexamples:",
            *examples,
        ]
    )


def list_all(config: config_dict.ConfigDict) -> None:
    """Print the table of data sets."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    columns = {"data set": "left", "source": "left", "evaluated in": "left"}
    columns |= {"steps": "right", "MB": "right", "here": "left"}
    for column, justify in columns.items():
        table.add_column(column, justify=justify)
    found = catalogue.entries(config.source)
    for entry, following in itertools.zip_longest(found, found[1:]):
        last = following is None or following.source != entry.source
        table.add_row(*_cells(entry), end_section=last)
    data_inspect.show(table)
    print("MB = 10^6 bytes; ~ what is to be expected; - not known or not here")


def _cells(entry: catalogue.Entry) -> tuple[str, ...]:
    seed = f", seed {entry.seed}" if entry.seed else ""
    size = "-" if entry.megabytes is None else _megabytes(entry.megabytes)
    steps = "-" if entry.steps is None else f"{entry.steps:,}"
    approximate = "~" if entry.path is None and entry.megabytes is not None else ""
    where = "-" if entry.path is None else _short(entry.path)
    return entry.name + seed, entry.source, entry.env_id or "-", steps, approximate + size, where


def download(config: config_dict.ConfigDict) -> None:
    """Fetch the files of a data set that are not here yet, and say where they are."""
    name, source = sources.split(config.source)
    if source == "d4rl":
        path = d4rl_files.locate(name)
    elif source.startswith("minari:"):
        path = _fetch_minari(source.removeprefix("minari:"))
    else:
        raise UserError(
            f"{config.source!r} cannot be downloaded; name d4rl:NAME or minari:ID"
            + (f", or write {usage('collect')}" if source == "builtin" else "")
        )
    print(f"{config.source} is in {path}")


def _fetch_minari(dataset_id: str) -> pathlib.Path:
    entries = catalogue.entries("minari")
    here = [e.path for e in entries if e.path and e.name == f"minari:{dataset_id}"]
    return here[0] if here else minari_download.fetch(dataset_id)


def _separate(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the words from the flags; a flag without "=" keeps the value behind it."""
    words, flags, pending = [], [], False
    for arg in argv:
        if pending or arg.startswith("-"):
            flags.append(arg)
        else:
            words.append(arg)
        pending = not pending and bool(re.fullmatch(r"--?config(\.[^=]*)?", arg))
    return words, flags


def _megabytes(size: float) -> str:
    return f"{size:,.0f}" if size >= 10 else f"{size:.1f}"


def _short(path: pathlib.Path) -> str:
    """Write a path as a shell takes it, from the home folder on."""
    home = cache.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


ACTIONS = {
    "list": Action(
        run=list_all,
        words=(),
        about="what there is, how large it is and where it lies",
        example="list --config.source=builtin",
    ),
    "inspect": Action(
        run=data_inspect.main,
        words=("source",),
        about="what is in a data set, with a figure and what deserves a second look",
        example="inspect hopper-medium --config.steps=200000",
    ),
    "collect": Action(
        run=data_collect.main,
        words=("name",),
        about="collect built-in data: <env>-<level>, <env> or all",
        example="collect hopper-medium --config.steps=200000",
    ),
    "convert": Action(
        run=data_convert.main,
        words=("source", "dataset_id"),
        about="write any source as a Minari data set",
        example="convert d4rl:hopper-medium mine/hopper/medium-v0",
    ),
    "download": Action(
        run=download,
        words=("source",),
        about="fetch the files of d4rl:NAME or minari:ID",
        example="download minari:mujoco/hopper/medium-v0",
    ),
}

if __name__ == "__main__":
    cli.run(main, explain, spell_out=spell_out)
