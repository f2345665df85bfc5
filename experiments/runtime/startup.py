"""The seconds before a program runs, in which it imports: one line there too, whatever happens."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType


def begin() -> None:
    """Prepare the imports of a program; Ctrl-C first, which may come at any moment."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _interrupt)
    sys.excepthook = _fail
    import mtm_jax.envs  # noqa: F401  sees to MUJOCO_GL


def end() -> None:
    """Give Ctrl-C back to the program, whose imports are done."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End at once: an exception within an import would be caught, or printed, by anybody."""
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line why the imports failed."""
    from experiments.runtime import failures

    if "--debug" in sys.argv or not isinstance(error, Exception):
        sys.__excepthook__(kind, error, trace)
    code, sentence = failures.describe(error)
    print(sentence, file=sys.stderr, flush=True)
    os._exit(code)
