"""Reads npz files and zip archives of unknown origin: nothing is executed, extracted or trusted."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from typing import BinaryIO

import numpy as np

from mtm_jax.data import paths
from mtm_jax.errors import UserError

MAX_BYTES = 64 * 2**30  # of all members, unpacked; ten million steps of ExORL have 3 GB of arrays
MAX_RATIO = 100  # of their unpacked size to the archive's; deflate reaches 1000 on zeros
HARMLESS_BYTES = 2**28  # an npz file may unpack to so much at any ratio: own data can be constant
# What numpy and zipfile raise where they meet damage.
DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, NotImplementedError),
    *(TypeError, SyntaxError, tokenize.TokenError),  # numpy's parser, on a damaged header
    *(zipfile.BadZipFile, zlib.error, struct.error),
    OverflowError,  # a header that declares more rows than can be counted
)


def load_npz(
    what: str, file: BinaryIO, keys: Collection[str] | None, max_bytes: int | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read arrays of numbers from an npz file.

    Args:
        what: the file, for messages.
        file: the open file.
        keys: which arrays to read, those of them that are there; None: all.
        max_bytes: how large they may be together; by default `MAX_BYTES`, and `HARMLESS_BYTES` or
            `MAX_RATIO` times the file's size.

    Returns:
        The arrays, and the names of the others.

    Raises:
        UserError: the file is damaged, too large, or holds something other than numbers.
    """
    try:
        max_bytes = _allowed(file) if max_bytes is None else max_bytes
        with _open_npz(file) as npz:
            keys = npz.files if keys is None else keys
            chosen = [key for key in npz.files if key in keys]
            size = sum(npz.zip.getinfo(f"{key}.npy").file_size for key in chosen)
            if size <= max_bytes:
                arrays = {key: npz[key] for key in chosen}
                return _numbers(what, arrays), [key for key in npz.files if key not in keys]
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(
            f"{what} cannot be read as npz ({error}); it is damaged, incomplete, or holds "
            "something other than arrays of numbers, which is never loaded"
        ) from error
    raise UserError(
        f"{what} unpacks to {size} bytes, more than the {max_bytes} that it can need; it is "
        "damaged or was made to exhaust memory"
    )


def _allowed(file: BinaryIO) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return min(MAX_BYTES, max(HARMLESS_BYTES, MAX_RATIO * size))


def _numbers(what: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for key, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise UserError(f"{what}: {key} has type {array.dtype}, expected numbers; convert it")
    return arrays


def _open_npz(file: BinaryIO) -> np.lib.npyio.NpzFile:
    npz = np.load(file, allow_pickle=False)
    if not isinstance(npz, np.lib.npyio.NpzFile):
        raise ValueError("it is a single array")
    return npz


def open_file(path: pathlib.Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        UserError: it is missing, no regular file, or may not be read.
    """
    try:
        paths.require_file(path)
        return path.open("rb")
    except OSError as error:
        raise UserError(f"file {path} cannot be read ({error}); check its permissions") from error


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose members are safe to read.

    Raises:
        UserError: it is missing or damaged, a member would lie outside the archive's folder or is
            a link, or it unpacks to more than `MAX_BYTES` or `MAX_RATIO` allow.
    """
    with open_file(path) as file, _archive(path, file) as archive:
        _check_members(path, archive.infolist())
        yield archive


def _archive(path: pathlib.Path, file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except DAMAGE as error:
        raise UserError(_damaged(f"archive {path}", error)) from error


def read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read one member, never more of it than the archive has declared.

    Raises:
        UserError: it is damaged or encrypted.
    """
    try:
        with archive.open(member) as file:
            return file.read(member.file_size)
    except DAMAGE as error:
        what = f"member {member.filename} of archive {archive.filename}"
        raise UserError(_damaged(what, error)) from error


def _damaged(what: str, error: Exception) -> str:
    return f"{what} cannot be read ({error}); it is damaged or incomplete, so fetch it again"


def _check_members(path: pathlib.Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        if _escapes(member.orig_filename) or stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(
                f"archive {path} is refused: its member {member.orig_filename!r} is a link or "
                "points outside of the archive; fetch the archive from its original place"
            )
    size = sum(member.file_size for member in members)
    allowed = min(MAX_BYTES, MAX_RATIO * path.stat().st_size)
    if size > allowed:
        raise UserError(
            f"archive {path} is refused: it would unpack to {size} bytes, more than {MAX_BYTES} "
            f"or {MAX_RATIO} times its own size; fetch the archive from its original place"
        )


def _escapes(name: str) -> bool:
    """Whether a member's name would leave the folder that the archive is unpacked in."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or re.match("[A-Za-z]:", name) is not None
