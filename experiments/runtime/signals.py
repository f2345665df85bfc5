"""Signals: the first one lets a training loop finish its step and save, a second one ends it.

SIGINT ends a program with exit code 130, SIGTERM with 143.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted:
    """Whether SIGINT or SIGTERM has arrived."""

    def __init__(self):
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal, as a shell would say it."""
        return 128 + (self.signal or 0)

    def note(self, number: int) -> None:
        """Remember the first signal."""
        if self.signal is None:
            self.signal = number


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupted]:
    """Let a loop finish its step and save before it stops.

    Python calls its handlers only between two of its own instructions, so not while a compiled
    call runs; a thread that the system's handler wakes ends the program there.
    """
    interrupted, (read, write) = Interrupted(), os.pipe()
    os.set_blocking(write, False)
    watcher = threading.Thread(target=_end_at_the_second, args=(read, interrupted), daemon=True)
    watcher.start()
    previous = {s: signal.signal(s, lambda number, _: interrupted.note(number)) for s in SIGNALS}
    previous_pipe = signal.set_wakeup_fd(write)
    try:
        yield interrupted
    finally:
        signal.set_wakeup_fd(previous_pipe)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(write)  # ends the watcher
        watcher.join()
        os.close(read)


def _end_at_the_second(read: int, interrupted: Interrupted) -> None:
    arrived = 0
    while number := os.read(read, 1):
        if number[0] not in SIGNALS:
            continue
        interrupted.note(number[0])
        arrived += 1
        if arrived > 1:
            os._exit(interrupted.exit_code)


def leave(interrupted: Interrupted, step: int, unit: str = "step") -> None:
    """End a program that was interrupted, after it has saved; say how to continue.

    Raises:
        SystemExit: it was interrupted.
    """
    if interrupted:
        text = f"stopped after {unit} {step}, which is saved; the same command continues"
        if step == 0:
            text = f"stopped before the first {unit}; the same command starts again"
        print(text, file=sys.stderr)
        sys.exit(interrupted.exit_code)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """End the program in order where SIGTERM arrives outside of a loop, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: object) -> None:
        print("terminated", file=sys.stderr)
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
