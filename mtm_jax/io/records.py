"""Files of JSON lines: appended row by row, read back complete.

A row counts once its line is complete: a line that a killed process left unfinished is dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO

from mtm_jax.errors import UserError


def append(path: pathlib.Path, row: Mapping) -> None:
    """Add one row; it is flushed when this returns. Several processes may add rows at once.

    Raises:
        ValueError: a number is not finite.
    """
    line = _line(row).encode()
    with _held(path) as file:
        _drop_unfinished_line(file)
        file.write(line)


def put(path: pathlib.Path, row: Mapping, same: Callable[[Mapping], bool]) -> None:
    """Add one row in place of those that are the `same`; else, or in a damaged file, `append` it.

    Raises:
        ValueError: a number is not finite.
    """
    row = plain(row)
    with _held(path) as file:
        try:
            kept = [old for old in read_jsonl(path) if not same(old)]
        except UserError:  # what was computed is not lost over that
            _drop_unfinished_line(file)
            file.write(_line(row).encode())
        else:
            rewrite(path, [*kept, row])


@contextlib.contextmanager
def _held(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Open a file to append to it, while no other process changes or replaces it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("ab+") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):  # another process replaced it meanwhile
                continue
            yield file
            return


def _is_at(file: BinaryIO, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def rewrite(path: pathlib.Path, rows: Iterable[Mapping]) -> None:
    """Replace a file by these rows, all of them or none."""
    _replace(path, "".join(_line(row) for row in rows).encode())


def read_jsonl(path: str | os.PathLike) -> list[dict]:
    """Read the complete rows of a file of JSON lines.

    Raises:
        UserError: there is no such file, or a line is damaged.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number} is damaged: {error}") from None
        if not isinstance(rows[-1], dict):
            kind = type(rows[-1]).__name__
            raise UserError(f"{path} line {number} is damaged: it holds a {kind}, not an object")
    return rows


def plain(row: Mapping) -> dict:
    """Turn a row into what is read back of it.

    Raises:
        ValueError: a number is not finite.
    """
    return json.loads(_line(row))


def _plain(value: object) -> object:
    """Turn numpy and jax values into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON")


def _line(row: Mapping) -> str:
    return json.dumps(row, default=_plain, allow_nan=False) + "\n"


def _drop_unfinished_line(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def _replace(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
