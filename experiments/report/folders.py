"""Read run folders for the page, and refuse what is no run or is damaged."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report import tables
from experiments.runtime import config_files, runs
from mtm_jax.agents import imagination
from mtm_jax.errors import UserError
from mtm_jax.io import metrics, records, results
from mtm_jax.plots.report import run as report_run

_SMALL = 3_000_000  # bytes of a video that the page holds itself
_VIDEOS = (".gif", ".mp4")


def read(paths: Sequence[pathlib.Path]) -> list[report_run.Run]:
    """Read runs.

    Raises:
        UserError: a folder is named twice, or what `_read` raises.
    """
    whole = [path.resolve() for path in paths]
    twice = [path for k, path in enumerate(whole) if path in whole[:k]]
    if twice:
        raise UserError(f"{twice[0]} was named twice; name each run once")
    return [_read(path, name) for path, name in zip(paths, names(whole), strict=True)]


def names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Name each path by as many of its last parts as tell all apart."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        short = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(short)) == len(short):
            break
    return short


def _read(path: pathlib.Path, name: str) -> report_run.Run:
    """Read a run.

    Raises:
        UserError: the folder holds no pretraining run, or one of its files is damaged.
    """
    config = runs.read_pretraining(path)
    if not isinstance(config.get("masks"), dict) or "fractions" not in config["masks"]:
        raise UserError(f"{path} holds no pretraining run: its config.json lacks masks.fractions")
    figure = path / "figures" / "imagination.png"
    films = sorted(p for p in (path / "videos").glob("*") if p.suffix in _VIDEOS)
    return report_run.Run(
        path=path,
        name=name,
        config=runs.flatten(config),
        defaults=_defaults(config),
        metrics=[_metric(path, row) for row in _rows(path / metrics.METRICS_FILE)],
        results=[_result(path, row) for row in _rows(path / results.RESULTS_FILE)],
        plans=_plans(path / imagination.FORECASTS_FILE),
        imagined=figure.read_bytes() if figure.is_file() else None,
        videos=[_video(film.resolve()) for film in films],
    )


def _defaults(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the run's preset says, "a.b" -> value; None where it is not known."""
    options = "".join(f",{k}={config[k]}" for k in ("preset", "variant", "role") if k in config)
    try:
        preset = config_files.load(f"configs/pretrain.py:{config['env']}{options}")
    except UserError:
        return None
    return runs.flatten(runs.to_json(preset))


def _rows(path: pathlib.Path) -> list[dict]:
    return records.read_jsonl(path) if path.exists() else []


def _metric(path: pathlib.Path, row: dict) -> dict:
    """Return a row of metrics if it is a step and numbers.

    Raises:
        UserError: it is not.
    """
    wrong = [key for key, value in row.items() if type(value) not in (int, float)]
    if wrong or "step" not in row:
        raise UserError(
            f"{path / metrics.METRICS_FILE} holds a row whose {', '.join(wrong or ['step'])} "
            "cannot be used; remove that row"
        )
    return row


def _result(path: pathlib.Path, row: dict) -> dict:
    """Return a row of results if it has what the page needs.

    Raises:
        UserError: something is missing or of the wrong kind.
    """
    file = path / results.RESULTS_FILE
    row = tables.checked(file, row)
    try:
        results.check_result(row)
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} holds a damaged row: {error}; remove that row") from error
    if not isinstance(row["versions"], dict):
        raise UserError(f"{file} holds a row whose versions cannot be used; remove that row")
    return row


def _plans(path: pathlib.Path) -> dict | None:
    """Read what plans predicted; None where nothing is stored.

    Raises:
        UserError: the file is damaged.
    """
    rows = _rows(path)
    if not rows:
        return None
    row, lists = rows[-1], ("starts", "values", "imagined", "real")
    numbers = all(_numbers(row.get(key)) for key in (*lists, "rewards"))
    alone = all(_numbers([row.get(key)]) for key in ("discount", "step"))
    if (
        not (numbers and alone and isinstance(row.get("ended"), bool) and "method" in row)
        or len({len(row[key]) for key in lists}) != 1
    ):
        again = "write it again with python -m experiments.m3pc_offline"
        raise UserError(f"{path} is damaged; {again}")
    return row


def _numbers(values: object) -> bool:
    """Whether these are numbers, at least one."""
    known = isinstance(values, list) and values
    return bool(known) and all(type(value) in (int, float) for value in values)


def _video(path: pathlib.Path) -> report_run.Video:
    size = path.stat().st_size
    return report_run.Video(path, size, path.read_bytes() if size <= _SMALL else None)
