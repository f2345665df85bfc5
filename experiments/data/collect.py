"""`python -m experiments.data collect`: collects built-in data sets and says what is in them."""

from __future__ import annotations

import importlib.metadata
import logging
import pathlib
import platform
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import rich.box
import rich.table
from ml_collections import config_dict

from experiments.data import inspect as data_inspect
from mtm_jax.data import catalogue, inspection
from mtm_jax.data.builtin import behaviours, collector, ladders
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.types import Trajectories

_LOG = logging.getLogger("mtm_jax")
_PACKAGES = ("mujoco", "gymnasium", "dm_control", "minari", "numpy", "mtm_jax")


class Collected(NamedTuple):
    """What is said about one data set, and kept of it."""

    found: inspection.Inspection
    returns: np.ndarray  # [episodes] float64
    folder: pathlib.Path
    seconds: float
    fresh: bool  # whether all of it was collected just now
    simulation: float | None  # MuJoCo's steps per second on one core just after, if fresh


def main(config: config_dict.ConfigDict) -> None:
    """Collect, or find what was collected before; print a table, and write what is asked for."""
    names = choose(config.name)
    if config.workers < 0:
        raise UserError(f"workers is {config.workers}; give a number, or 0 for one per core")
    if config.figure and not config.figure.endswith(".png"):
        raise UserError(f"figures are PNG files, and {config.figure} does not end in .png")
    if config.actors and len({_split(name)[0] for name in names}) > 1:
        raise UserError("--config.actors is a folder of one environment; name that, not 'all'")
    for path in filter(None, (config.results, config.figure)):
        _check_place(pathlib.Path(path))
    collected = []
    for name in names:
        collected.append(collect(name, config))
        if config.results:
            records.append(pathlib.Path(config.results), row(collected[-1], config))
        print(f"{name} is stored in {collected[-1].folder}")
    data_inspect.show(summary(collected[0]) if len(names) == 1 else table(collected))
    if config.figure:
        from mtm_jax.plots import data_sets

        returns = {one.found.info.name: one.returns for one in collected}
        print(f"figure: {data_sets.return_grid(returns, config.figure)}")


def choose(text: str) -> list[str]:
    """Turn `<env>-<level>`, `<env>` or `all` into names; those of joined data come last.

    Raises:
        UserError: the environment or level is unknown, or has no built-in data.
    """
    names = catalogue.builtin_names()
    if text == "all":
        absent = [name for name in names if not _has_actors(name)]
        names = [name for name in names if name not in absent]
        if absent:
            _LOG.warning("left out, for want of actors: %s", ", ".join(absent))
    else:
        names = [name for name in names if _split(name)[0] == text]
    if not names:
        registry.parse_name(text)
        return [text]
    return sorted(names, key=lambda name: _split(name)[1] == "medium-expert")


def collect(name: str, config: config_dict.ConfigDict) -> Collected:
    """Load one data set, which collects it where it is not stored yet."""
    parts = _parts(name, config.steps or None, config.seed)
    begun = any(any(part.parent.glob(f".*{part.name}-*")) for part in parts)  # hidden: unfinished
    before, started = [*map(_stamp, parts)], time.perf_counter()
    trajectories = behaviours.load(
        name,
        config.steps or None,
        config.seed,
        actors=config.actors or None,
        workers=config.workers or None,
    )
    seconds = time.perf_counter() - started
    changed = all(old != new for old, new in zip(before, map(_stamp, parts), strict=True))
    fresh = changed and not begun
    return Collected(
        found=inspection.inspect(trajectories),
        returns=inspection.returns(trajectories),
        folder=behaviours.folder(name, config.steps or None, config.seed),
        seconds=seconds,
        fresh=fresh,
        simulation=_simulation_rate(trajectories) if fresh else None,
    )


def row(one: Collected, config: config_dict.ConfigDict) -> dict:
    """Build the JSON row of one data set."""
    found = one.found
    numbers = {"length": found.lengths, "return": found.returns, "score": found.scores}
    return {
        "experiment": "data",
        "name": found.info.name,
        "env_id": found.info.env_id,
        "seed": config.seed,
        "steps": found.steps,
        "episodes": found.episodes,
        **{f"mean_{key}": spread.mean for key, spread in numbers.items()},
        **{f"min_{key}": spread.low for key, spread in numbers.items()},
        **{f"max_{key}": spread.high for key, spread in numbers.items()},
        "seconds": one.seconds,
        "steps_per_second": found.steps / one.seconds if one.fresh else None,
        "simulation_steps_per_second": one.simulation,  # of MuJoCo alone on one core
        "workers": config.workers or collector.cores(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
    }


def version(package: str) -> str:
    """Return the version of an installed package."""
    return importlib.metadata.version(package)


def summary(one: Collected) -> rich.table.Table:
    """Tabulate one data set."""
    found = one.found
    grid = rich.table.Table(show_header=False)
    grid.title = f"{found.info.name} ({found.info.env_id})"
    grid.add_row("steps", f"{found.steps:,}")
    grid.add_row("episodes", f"{found.episodes:,}, {found.cut} of them cut")
    grid.add_row("mean length", f"{found.lengths.mean:,.1f} steps")
    grid.add_row("mean return", f"{found.returns.mean:,.1f}")
    grid.add_row("lowest return", f"{found.returns.low:,.1f}")
    grid.add_row("highest return", f"{found.returns.high:,.1f}")
    grid.add_row("normalised score", f"{found.scores.mean:.1f}")
    grid.add_row("collected", _rate(one, " steps/s"))
    return grid


def table(collected: Sequence[Collected]) -> rich.table.Table:
    """Tabulate several data sets, a row each."""
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    grid.add_column("data set")
    grid.add_column("evaluated in")
    for column in ("steps", "episodes", "length", "return", "highest", "score", "steps/s"):
        grid.add_column(column, justify="right")
    for one in collected:
        found = one.found
        grid.add_row(
            found.info.name,
            found.info.env_id,
            f"{found.steps:,}",
            f"{found.episodes:,}",
            f"{found.lengths.mean:,.1f}",
            f"{found.returns.mean:,.1f}",
            f"{found.returns.high:,.1f}",
            f"{found.scores.mean:.1f}",
            _rate(one),
        )
    return grid


def _simulation_rate(trajectories: Trajectories) -> float | None:
    from experiments.runtime import machine

    return machine.simulation_rate(
        trajectories.info.env_id, trajectories.observations, trajectories.actions
    )


def _check_place(path: pathlib.Path) -> None:
    """Learn before the work, which takes long, that a file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another") from error


def _rate(one: Collected, unit: str = "") -> str:
    return f"{one.found.steps / one.seconds:,.0f}{unit}" if one.fresh else "earlier"


def _parts(name: str, steps: int | None, seed: int) -> list[pathlib.Path]:
    """Folders of what is sampled for a data set; medium-expert joins two others."""
    env, level = _split(name)
    if level != "medium-expert":
        return [behaviours.folder(name, steps, seed)]
    steps = behaviours.STEPS[level] if steps is None else steps
    halves = {"medium": steps // 2, "expert": steps - steps // 2}
    return [behaviours.folder(f"{env}-{half}", count, seed) for half, count in halves.items()]


def _stamp(folder: pathlib.Path) -> tuple[int, int] | None:
    """What changes when a folder is published anew; None where there is none."""
    try:
        stat = folder.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _has_actors(name: str) -> bool:
    spec, _ = registry.parse_name(name)
    return (ladders.folder_of(spec) / "ladder.json").is_file()


def _split(name: str) -> tuple[str, str]:
    env, _, level = name.partition("-")
    return env, level
