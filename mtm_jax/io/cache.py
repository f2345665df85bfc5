"""The folder that downloaded and collected data live in, and atomic publication into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping

from mtm_jax.errors import UserError

_STAGED = ".staged-"  # hidden, so that Minari's listings skip it
_PARTIAL = ".partial-"  # work that the next call continues
_NO_HOME = pathlib.Path("/nonexistent")  # as Debian calls it
_ABANDONED_SECONDS = {_STAGED: 24 * 3600.0, _PARTIAL: 14 * 24 * 3600.0}


def folder() -> pathlib.Path:
    """Return `MTM_JAX_DATA`, or `~/.cache/mtm_jax` where that is not set.

    Raises:
        UserError: it is not set, and the user has no home folder.
    """
    if chosen := os.environ.get("MTM_JAX_DATA"):
        return pathlib.Path(chosen).expanduser()
    if home() == _NO_HOME:
        raise UserError(
            "this user has no home folder to keep data in; set MTM_JAX_DATA to a folder that you "
            "may write to"
        )
    return home() / ".cache/mtm_jax"


def home() -> pathlib.Path:
    """Return the user's home folder; one that does not exist where the machine knows none."""
    try:
        return pathlib.Path.home()
    except RuntimeError:
        return _NO_HOME


@contextlib.contextmanager
def staging(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield an empty folder beside `final`, on the same file system; remove what is left of it.

    Raises:
        UserError: it cannot be created.
    """
    staged = _make_staged(final)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def partial(final: pathlib.Path, origin: Mapping) -> Iterator[pathlib.Path]:
    """Yield a folder beside `final` for finished parts of what will be published there.

    It stays where the work is interrupted, and is found again by the same origin; once the work
    is done it is removed.

    Args:
        final: where the whole will be.
        origin: everything that determines the parts, JSON-like.
    """
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]
    folder = final.parent / f"{_PARTIAL}{final.name}-{digest}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def publish(staged: pathlib.Path, final: pathlib.Path) -> bool:
    """Rename the staged folder to its final name; False where another process was first."""
    try:
        os.rename(staged, final)
    except OSError:
        if final.is_dir():
            return False
        raise
    return True


def discard(final: pathlib.Path) -> None:
    """Remove a published folder; its name is free in one step, before the files go."""
    with staging(final) as staged, contextlib.suppress(FileNotFoundError):
        os.rename(final, staged / final.name)


def sha256(path: pathlib.Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_staged(final: pathlib.Path) -> pathlib.Path:
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final.parent)
        staged = tempfile.mkdtemp(prefix=f"{_STAGED}{final.name}-", dir=final.parent)
    except OSError as error:
        raise UserError(
            f"cannot write to the data folder {final.parent} ({error.strerror}); "
            "set MTM_JAX_DATA to a folder that you may write to"
        ) from error
    os.chmod(staged, 0o755)  # mkdtemp makes folders that only their owner can read
    return pathlib.Path(staged)


def _sweep(parent: pathlib.Path) -> None:
    """Remove what killed processes left behind, and nobody continued."""
    for prefix, seconds in _ABANDONED_SECONDS.items():
        for left in parent.glob(f"{prefix}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > seconds:
                    shutil.rmtree(left, ignore_errors=True)
