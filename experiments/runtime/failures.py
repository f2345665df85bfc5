"""How a program ends that cannot go on: one sentence on standard error, and an exit code.

Whatever the user or the machine is to blame for ends with 2, a mistake of this code with 70; of
that the traceback is kept in a file, for a run may have taken hours to get there.
"""

from __future__ import annotations

import errno
import os
import pathlib
import tempfile
import textwrap
import traceback

from experiments.runtime import surroundings
from mtm_jax.errors import UserError

REFUSED = 2
BUG = 70  # EX_SOFTWARE of sysexits.h
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SHOWN = 300  # characters of a message that was not written for people
# What the file system refuses, and the way out.
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room; the same command continues a run"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "change its permissions, or choose a place that you may write to",
    ),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
        "check the path",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV), "check the disk"),
    **dict.fromkeys((errno.EFBIG,), "allow larger files (ulimit -f)"),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), "end other programs, or allow more (ulimit -a)"),
}


def describe(error: Exception) -> tuple[int, str]:
    """Say how a program ends by an exception: its exit code, and one line for the user."""
    code, sentence = _describe(error)
    return code, f"error: {' '.join(sentence.splitlines())}"


def _describe(error: Exception) -> tuple[int, str]:
    if isinstance(error, UserError):
        return REFUSED, str(error)
    if isinstance(error, OSError) and error.errno in _ADVICE:
        place = "a file" if error.filename is None else error.filename
        reason = error.strerror or type(error).__name__
        return REFUSED, f"{place} cannot be read or written ({reason}); {_ADVICE[error.errno]}"
    if sentence := surroundings.blame(error):
        return REFUSED, sentence
    return BUG, (
        f"this is a bug in mtm_jax: {_said(error)}{_place(error)}; run again with --debug and "
        f"report it{_kept(error)}"
    )


def _said(error: Exception) -> str:
    text = str(error).strip()
    name = type(error).__name__
    return textwrap.shorten(f"{name}: {text}" if text else name, _SHOWN)


def _place(error: Exception) -> str:
    """Where in this repository an exception came from; the innermost place counts."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = pathlib.Path(frame.filename)
        if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] != ".venv":
            return f" ({path.relative_to(_ROOT)} line {frame.lineno})"
    return ""


def _kept(error: Exception) -> str:
    """Keep the traceback in a file, if one can be written, and say where."""
    try:
        handle, path = tempfile.mkstemp(prefix="mtm_jax-traceback-", suffix=".txt")
        with os.fdopen(handle, "w") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return f"; the traceback is in {path}"
