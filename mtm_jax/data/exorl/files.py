"""Lists the episode files of ExORL's layout, in a folder or in a zip archive that stays packed."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from mtm_jax.data import archives
from mtm_jax.errors import UserError

_NAME = re.compile(r"\w*_([0-9]{1,9})_([0-9]{1,9})\.npz")  # episode_<number>_<steps>.npz


class Entry(NamedTuple):
    """One episode.

    Attributes:
        number: its place in the order.
        steps: its length, by its name.
        where: its file, for messages.
        open: gives the file's content.
    """

    number: int
    steps: int
    where: str
    open: Callable[[], BinaryIO]


@contextlib.contextmanager
def entries(path: pathlib.Path) -> Iterator[list[Entry]]:
    """List the episodes in the order of their numbers; an archive stays open meanwhile.

    Raises:
        UserError: a file's name does not tell number and steps, two files have the same number, or
            the archive is not safe to read.
    """
    if path.is_dir():
        files = [(str(f), functools.partial(archives.open_file, f)) for f in path.rglob("*.npz")]
        yield _sorted(files)
        return
    with archives.opened(path) as archive:
        files = [
            (f"{path}/{m.filename}", functools.partial(_open_member, archive, m))
            for m in archive.infolist()
            if m.filename.endswith(".npz")
        ]
        yield _sorted(files)


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    return io.BytesIO(archives.read(archive, member))


def _sorted(files: Sequence[tuple[str, Callable[[], BinaryIO]]]) -> list[Entry]:
    found: dict[int, Entry] = {}
    for where, opener in files:
        name = pathlib.PurePosixPath(where.replace(os.sep, "/")).name
        if name.startswith("._"):  # what a Mac adds to archives
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            raise UserError(
                f"file {where} is not called episode_<number>_<steps>.npz; move it elsewhere"
            )
        number, steps = map(int, match.groups())
        if number in found:
            raise UserError(
                f"episode {number} is in both {found[number].where} and {where}; name the "
                "folder of one data set"
            )
        found[number] = Entry(number, steps, where, opener)
    return [found[number] for number in sorted(found)]


def choose(
    path: pathlib.Path, found: list[Entry], longest: int, limit_steps: int | None
) -> list[Entry]:
    """Take the first episodes that hold `limit_steps` steps together, or all.

    Raises:
        UserError: there are none, or one has no step or more than `longest`.
    """
    if not found:
        raise UserError(f"{path} holds no episodes; ExORL's are called episode_000000_1000.npz")
    if limit_steps is not None and limit_steps < 1:
        raise UserError(f"limit_steps is {limit_steps}; it must be at least 1")
    for entry in found:
        if not 1 <= entry.steps <= longest:
            raise UserError(
                f"episode {entry.where} has {entry.steps} steps by its name, expected 1 to "
                f"{longest}; remove it"
            )
    if limit_steps is None:
        return found
    totals = np.cumsum([entry.steps for entry in found])
    return found[: int(np.searchsorted(totals, limit_steps)) + 1]
