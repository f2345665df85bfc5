"""One checkpoint on disk, written and read by orbax: the only module that knows it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from mtm_jax.errors import UserError

_ERRNO = re.compile(r"os_error_code='(\d+)'")  # how tensorstore reports the file system
# Errors of the machine while it reads, which say nothing about the file.
_MACHINE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
_MACHINE |= {errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY}
# orbax warns about intended use, such as numpy arrays without a sharding, and logs what it also
# raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Unreadable(Exception):
    """The files of a checkpoint make no sense to orbax."""


def write(path: pathlib.Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint; it appears under its name only when it is complete.

    Args:
        path: the folder to make.
        arrays: trees of numpy arrays, by name.
        meta: JSON values.

    Raises:
        OSError: the file system refuses.
    """
    items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
    try:
        with only_the_error():
            _checkpointer().save(path, ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)))
    except ValueError as error:
        if number := _errno(error):
            raise OSError(number, os.strerror(number)) from error
        raise


def read_arrays(path: pathlib.Path, name: str) -> Any:
    """Read a tree of arrays as nested dicts of numpy arrays, as they were saved.

    Raises:
        Unreadable: a file is missing or damaged.
        UserError: the machine cannot read it now.
    """
    return _read(path, name, ocp.args.StandardRestore())


def read_meta(path: pathlib.Path) -> Any:
    """Read the JSON values.

    Raises:
        Unreadable: the file is missing or damaged.
        UserError: the machine cannot read it now.
    """
    return _read(path, "meta", ocp.args.JsonRestore())


def _read(path: pathlib.Path, name: str, how: Any) -> Any:
    try:
        with only_the_error():
            return _checkpointer().restore(path, ocp.args.Composite(**{name: how}))[name]
    except Exception as error:  # orbax raises whatever it meets in a damaged file
        if (reason := _machine(error)) is not None:
            raise UserError(
                f"this machine cannot read checkpoint {path} now ({reason}); the checkpoint may "
                "well be good: fix that and run the same command again"
            ) from error
        raise Unreadable(textwrap.shorten(f"{type(error).__name__}: {error}", 300)) from error


def _checkpointer() -> ocp.Checkpointer:
    """No process waits for another: the first one writes, each reads alone."""
    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    here = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    # Handlers that orbax makes by itself wait for all processes.
    arrays = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options),
        model=arrays,
        train=arrays,
        meta=ocp.JsonCheckpointHandler(multiprocessing_options=options),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _errno(error: BaseException) -> int | None:
    """Number of the file system's error, which tensorstore puts at the end of a long story."""
    if isinstance(error, OSError):
        return error.errno
    found = _ERRNO.search(str(error))
    return int(found[1]) if found else None


def _machine(error: Exception) -> str | None:
    """Say what the machine lacks to read a file; None where the file is to blame."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "not enough memory"
    if isinstance(error, ImportError):
        return str(error)
    number = _errno(error)
    return os.strerror(number) if number in _MACHINE else None


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
