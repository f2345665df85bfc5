"""The loop of every training: run, log, validate if due, save if due.

    loop.run(trainer, schedule, "pretraining")

A trainer trains one run, or several in one program. The loop resumes it, stops it after the step
at which a signal arrives, and ends with everything saved.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from experiments.runtime import signals
from experiments.training import nonfinite
from mtm_jax.io import progress
from mtm_jax.training import sharding

Row = dict[str, float]  # metrics of one run


class Trainer(Protocol):
    """What the loop drives. Rows are metrics, one row for each run."""

    step: int  # steps done

    def hold(self) -> contextlib.AbstractContextManager:
        """Hold the run folders against other processes."""

    def resume(self) -> None:
        """Continue from the newest checkpoints, if there are any."""

    def run(self, length: int) -> list[Row]:
        """Train for `length` steps; return the metrics of these steps."""

    def validate(self) -> list[Row]:
        """Measure the present models."""

    def log(self, rows: Sequence[Row]) -> None:
        """Store the metrics of the present step."""

    def save(self, rows: Sequence[Row] | None) -> None:
        """Write checkpoints of the present step, with its metrics where they were measured."""

    def summary(self, rows: Sequence[Row]) -> str:
        """Describe how the training goes, for the progress bar."""


class Schedule(NamedTuple):
    """When something is due: when a multiple of its interval is passed, and at the end."""

    total: int  # steps of the whole training; the unit of all intervals
    call: int  # steps between two moments at which anything can be due
    log: int
    save: int
    validate: int | None = None  # None: never
    validate_saves: bool = False  # validate before every save, so that checkpoints have scores

    def due(self, step: int, length: int) -> Due:
        """Say what is due after a call of `length` steps."""

        def passed(interval: int) -> bool:
            return step == self.total or step // interval > (step - length) // interval

        save = passed(self.save)
        validate = self.validate is not None and passed(self.validate)
        return Due(passed(self.log), validate or (save and self.validate_saves), save)


class Due(NamedTuple):
    """What is due after a call."""

    log: bool
    validate: bool
    save: bool


def run(trainer: Trainer, schedule: Schedule, title: str, unit: str = "steps") -> list[Row]:
    """Resume and train to the last step; return the last metrics, if there are any.

    Raises:
        SystemExit: a signal arrived; what has been trained is saved.
    """
    with trainer.hold(), signals.interruptible() as interrupted:
        trainer.resume()
        rows = train(trainer, schedule, interrupted, title, unit)
    signals.leave(interrupted, trainer.step, unit.removesuffix("s"))
    return rows


def train(
    trainer: Trainer,
    schedule: Schedule,
    interrupted: signals.Interrupted,
    title: str,
    unit: str = "steps",
) -> list[Row]:
    """Train to the last step, or to the end of the call in which a signal arrives."""
    total, saved, rows = schedule.total, trainer.step, []
    with progress.progress(total, title, start=trainer.step, unit=unit) as bar:
        bar.update(trainer.step, "compiling")
        while trainer.step < total and not sharding.anywhere(bool(interrupted)):
            length = min(schedule.call, total - trainer.step)
            rows = trainer.run(length)
            due = schedule.due(trainer.step, length)
            if due.validate:
                rows = [row | more for row, more in zip(rows, trainer.validate(), strict=True)]
            if due.log:
                nonfinite.check(trainer.step, length, rows)
                trainer.log(rows)
            bar.update(trainer.step, trainer.summary(rows))
            if due.save:
                trainer.save(rows)
                saved = trainer.step
    if trainer.step < total:
        interrupted.note(signal.SIGTERM)  # perhaps another process was
    if saved < trainer.step:
        trainer.save(None)
    return rows
