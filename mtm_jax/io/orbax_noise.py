"""What orbax prints besides the errors that it raises."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def only_the_error() -> Iterator[None]:
    """Keep what orbax prints besides the error that it raises from standard error.

    When one array cannot be read, it closes its event loop under the reads of the others. Each
    complains about that when it ends, which may be later: after an error the filters stay.
    """
    logger, hook = logging.getLogger("asyncio"), sys.unraisablehook
    filtered = _is_no_late_read in logger.filters

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(_is_no_late_read)
    sys.unraisablehook = report
    yield
    sys.unraisablehook = hook
    if not filtered:
        logger.removeFilter(_is_no_late_read)


def _is_no_late_read(record: logging.LogRecord) -> bool:
    """Whether a message of asyncio is about something else than a failed read of tensorstore."""
    return not (record.exc_info and "tensorstore_spec=" in str(record.exc_info[1]))
