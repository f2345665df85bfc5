"""Arrays that only grow, in files that are written once: what a checkpoint must not rewrite.

A checkpoint of a program with a replay buffer holds the list of its shards; each save adds one
with the rows that are new since the last.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint

Entry = dict[str, Any]  # JSON: file, start, stop, sha256
FIELDS = {"file": str, "start": int, "stop": int, "sha256": str}


class Shards:
    """The shards in one folder."""

    def __init__(self, folder: str | os.PathLike):
        """Open a folder, which is created with the first shard."""
        self.folder = pathlib.Path(folder)

    def write(self, start: int, rows: Mapping[str, np.ndarray]) -> Entry:
        """Write rows `start` and following as one file; return what a checkpoint says of it.

        Raises:
            UserError: the file system refuses.
        """
        stop = start + len(next(iter(rows.values())))
        path = self.folder / f"{start:012d}-{stop:012d}.npz"
        temporary = path.with_name(f".{path.name}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, **rows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            return {"file": path.name, "start": start, "stop": stop, "sha256": _digest(path)}
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error}); make room, then the same command continues"
            ) from error

    def read(self, entries: Sequence[Entry], start: int) -> dict[str, np.ndarray]:
        """Join the rows from `start` on, verified.

        Raises:
            UserError: `checkpoint.Damaged`.
        """
        parts = [self._read(entry) for entry in entries if _checked(entry)["stop"] > start]
        if not parts:
            return {}
        skipped = start - min(e["start"] for e in entries if e["stop"] > start)
        return {k: np.concatenate([p[k] for p in parts])[max(skipped, 0) :] for k in parts[0]}

    def _read(self, entry: Entry) -> dict[str, np.ndarray]:
        path = self.folder / pathlib.Path(entry["file"]).name
        try:
            if _digest(path) != entry["sha256"]:
                raise checkpoint.Damaged(f"{path} is damaged: it does not match its digest")
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise checkpoint.Damaged(f"{path} cannot be read ({error})") from error

    def keep(self, entries: Iterable[Entry]) -> None:
        """Remove all files but those of `entries`."""
        names = {entry["file"] for entry in entries}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in names:
                path.unlink()


def _checked(entry: Entry) -> Entry:
    if {k: type(v) for k, v in entry.items()} != FIELDS:
        raise checkpoint.Damaged(f"{entry!r} does not name a shard")
    return entry


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
