"""Standard output and error that no program fails by.

What the encoding of a stream lacks is spelled in ASCII. Where a stream takes no more (a closed
pipe, a terminal that is gone, a full disk), the rest is dropped and the program goes on: what it
computes is worth more than what it prints.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_SPELLED = {"±": "+/-", "─": "-", "━": "-", "│": "|", "…": "..."}
_SPELLED |= dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True))  # bars of a histogram
_HANDLER = "mtm_jax.spelled"


def _spell(error: UnicodeError) -> tuple[str, int]:
    missing = error.object[error.start : error.end]
    spelled = (_SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing)
    return "".join(spelled), error.end


codecs.register_error(_HANDLER, _spell)


def spelled(text: str, stream: TextIO | None) -> str:
    """Replace what the encoding of a stream lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, _HANDLER).decode(encoding)


class Tolerant:
    """A stream of text that takes everything; else it is the stream that it wraps."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, as far as the stream can."""
        with self._dropping():
            self._stream.write(spelled(text, self._stream))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        """Let the stream lead nowhere from the first error on; what is buffered goes there too."""
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):  # as `head` leaves, which has had enough
                print(f"output is lost from here on: {error}", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """Make standard output and error tolerant while a program runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_wrapped, before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = before


def _wrapped(stream: TextIO | None) -> TextIO | Tolerant | None:
    return stream if stream is None or isinstance(stream, Tolerant) else Tolerant(stream)


def standard_output() -> TextIO | Tolerant | None:
    """Return a tolerant standard output, for a function that may be called outside of a program."""
    return _wrapped(sys.stdout)
