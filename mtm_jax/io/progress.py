"""Progress of a long program: a live bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from typing import Protocol

import rich
from rich import progress as rich_progress
from rich import text as rich_text

LINE_SECONDS = 10.0


class Bar(Protocol):
    """What `progress` gives."""

    def update(self, step: int, text: str = "") -> None:
        """Say that `step` steps are done in all, with a note such as the losses."""


@contextlib.contextmanager
def progress(total: int, description: str, start: int = 0, unit: str = "steps") -> Iterator[Bar]:
    """Show steps (or another unit) done, the rate per second, time elapsed and time left.

    Args:
        total: steps of the whole program.
        description: a word or two in front.
        start: steps that were done before, of a resumed run; they do not count for the rate.
        unit: what is counted.
    """
    console = rich.get_console()
    if not console.is_terminal:
        yield _Lines(total, description, start, unit)
        return
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=20),
        rich_progress.MofNCompleteColumn(),
        _RateColumn(unit),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=console, speed_estimate_period=300) as bars:
        yield _Live(bars, bars.add_task(description, total=total, completed=start, note=""))


class _RateColumn(rich_progress.ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: rich_progress.Task) -> rich_text.Text:
        rate = "-" if task.speed is None else f"{task.speed:.1f}"
        return rich_text.Text(f"{rate} {self._unit}/s")


class _Live:
    def __init__(self, bars: rich_progress.Progress, task: rich_progress.TaskID):
        self._bars, self._task = bars, task

    def update(self, step: int, text: str = "") -> None:
        self._bars.update(self._task, completed=step, note=text)


class _Lines:
    def __init__(self, total: int, description: str, start: int, unit: str):
        self._total, self._description, self._unit = total, description, unit
        self._began = self._measured = time.monotonic()
        self._step = start
        self._due = self._began  # the first update is shown: something is alive

    def update(self, step: int, text: str = "") -> None:
        now = time.monotonic()
        if now < self._due and step < self._total:
            return
        rate = (step - self._step) / max(now - self._measured, 1e-9)
        left = _clock((self._total - step) / rate) if rate > 0 else "unknown time"
        line = (
            f"{self._description} {step}/{self._total}, {rate:.1f} {self._unit}/s, "
            f"{_clock(now - self._began)} elapsed, {left} left  {text}"
        )
        rich.get_console().print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)
        self._step, self._measured, self._due = step, now, now + LINE_SECONDS


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
