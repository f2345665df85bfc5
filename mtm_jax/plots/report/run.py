"""What the report knows of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Video(NamedTuple):
    """A file of a run's videos; `data` only where it is small."""

    path: pathlib.Path
    size: int  # bytes
    data: bytes | None


class Run(NamedTuple):
    """A run folder, read."""

    path: pathlib.Path
    name: str  # short, and different for each run of a page
    config: Mapping[str, Any]  # "a.b" -> value
    defaults: Mapping[str, Any] | None  # those of its preset; None where they are not known
    metrics: Sequence[Mapping[str, float]]  # rows of metrics.jsonl
    results: Sequence[Mapping[str, Any]]  # rows of results.jsonl
    plans: Mapping[str, Any] | None  # see `imagination.forecasts`
    imagined: bytes | None  # figure of imagined rollouts, PNG
    videos: Sequence[Video]
