"""Refuse what is not a regular file before it is opened: a named pipe is never read to its end."""

from __future__ import annotations

import pathlib
import stat

from mtm_jax.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_file(path: pathlib.Path) -> None:
    """Refuse a path that does not lead to a regular file.

    Raises:
        UserError: it leads nowhere, or to something else.
        OSError: its folder may not be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no file {path}; check the path") from error
    if not stat.S_ISREG(mode):
        kind = next((name for holds, name in _KINDS if holds(mode)), "something else")
        raise UserError(f"{path} is {kind}, not a regular file; copy its content into a file")
