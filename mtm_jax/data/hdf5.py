"""Opens HDF5 files and reads arrays of numbers from them."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator

import h5py
import numpy as np

from mtm_jax.data import paths
from mtm_jax.errors import UserError

MAX_BYTES = 64 * 2**30  # of all arrays that are read; ten million steps of D4RL have 2 GB
MAX_RATIO = 1100  # of their size to the file's; gzip packs constants 1030 to 1, and no better
_INSIDE = (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Open a file to read, if no link in it leads to another file.

    Raises:
        UserError: it is missing, may not be read, is being written, links to another file, or HDF5
            finds something wrong with it while it is open.
    """
    path = pathlib.Path(path)
    try:
        paths.require_file(path)
        with h5py.File(path, "r") as file:
            _refuse_links(f"file {path}", file)
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise UserError(_problem(path, error)) from error


def _problem(path: pathlib.Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"file {path} may not be read (permission); change its permissions"
    if isinstance(error, BlockingIOError):
        return f"file {path} is opened by another program; try again when that has closed it"
    if isinstance(error, MemoryError):
        return f"file {path} has more data than this machine has memory for; read a smaller one"
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return (
        f"file {path} cannot be read as HDF5 ({reason}); it is damaged, incomplete or of another "
        "format, so fetch it again"
    )


def _refuse_links(what: str, file: h5py.File) -> None:
    """Refuse a file with links that leave it, without following one.

    They could name any file that the user may read, and opening a named pipe never returns.
    """

    def leaves(name: str, link: h5py.h5l.LinkInfo) -> str | None:
        return None if link.type in _INSIDE else name

    name = file.id.links.visit(leaves, info=True)
    if name is not None:
        raise UserError(outside(what, name.decode(errors="replace")))


def check_stored(what: str, key: str, stored: h5py.Dataset) -> None:
    """Refuse an array whose numbers lie in another file.

    Raises:
        UserError: it is stored elsewhere, or is virtual.
    """
    if stored.is_virtual or stored.external:
        raise UserError(outside(what, key))


def outside(what: str, key: str) -> str:
    """Say that a part of a file is stored elsewhere."""
    return (
        f"{what}: {key} is stored in another file; only data inside the file are read, so copy "
        "them into one file"
    )


def check_size(what: str, file: h5py.h5f.FileID, size: int) -> None:
    """Refuse arrays that a file only claims to have, before there is memory taken for them.

    Args:
        what: the file or the array, for messages.
        file: the file.
        size: bytes of the arrays, unpacked.

    Raises:
        UserError: they are too large, or larger than the file can hold.
    """
    stored = file.get_filesize()
    if size > min(MAX_BYTES, MAX_RATIO * stored):
        raise UserError(
            f"{what} declares {size} bytes of numbers in a file of {stored} bytes, more than "
            f"{MAX_BYTES} or {MAX_RATIO} times the file's size, which no compression reaches; it "
            "is damaged or was made to exhaust memory, so fetch it again"
        )


def size(stored: h5py.Dataset) -> int:
    """Return the bytes of an array, unpacked; h5py's own number overflows."""
    return math.prod(stored.shape) * stored.dtype.itemsize


def dataset(what: str, group: h5py.Group, key: str) -> h5py.Dataset:
    """Find an array in a group that has something under `key`.

    Raises:
        UserError: it is not an array, not of numbers, in another file, or impossibly large.
    """
    stored = group[key]
    if not isinstance(stored, h5py.Dataset):
        raise UserError(f"{what}: {key} is a group, expected an array, one row per step")
    check_stored(what, key, stored)
    if stored.dtype.kind not in "fiub" or stored.shape is None:
        raise UserError(f"{what}: {key} has type {stored.dtype}, expected numbers; convert it")
    check_size(f"{what}: {key}", group.file.id, size(stored))
    return stored


def load(stored: h5py.Dataset, rows: int | tuple = ()) -> np.ndarray:
    """Read an array, or one row; floats become float32 on the way, without another copy."""
    return (stored.astype(np.float32) if stored.dtype.kind == "f" else stored)[rows]
