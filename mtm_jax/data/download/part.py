"""The unfinished download beside a file: its bytes, which version they are of, and its lock."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

_LOG = logging.getLogger("mtm_jax")


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Hold the lock file `path` alone, waiting for others; the system frees it from the killed.

    What is written into it stays for the next owner; an empty one is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+b", buffering=0) as file:
            _wait_for(file, path)
            if os.fstat(file.fileno()).st_nlink == 0:  # its last owner removed it
                continue
            try:
                yield file
            finally:
                if os.fstat(file.fileno()).st_size == 0:
                    path.unlink(missing_ok=True)
            return


def _wait_for(file: BinaryIO, path: pathlib.Path) -> None:
    import fcntl  # Windows lacks it, and only downloads need it

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _LOG.info("another process holds %s; waiting for it", path)
        fcntl.flock(file, fcntl.LOCK_EX)


@dataclasses.dataclass(frozen=True)
class Version:
    """A file as its server describes it; what it does not say is empty or None."""

    url: str
    etag: str = ""
    modified: str = ""
    size: int | None = None

    @property
    def validator(self) -> str:
        """What If-Range takes: a strong tag or a date."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified

    def agrees(self, other: Version) -> bool:
        """Whether all that both say is the same."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(a == b for a, b in pairs if a not in ("", None) and b not in ("", None))


class Part:
    """What has arrived of `final`; the locked record beside it says of which version."""

    def __init__(self, final: pathlib.Path, record: BinaryIO):
        self.path = final.with_name(f"{final.name}.part")
        self._final, self._record = final, record

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> Version | None:
        """The version that the bytes are of; None where that is not known."""
        self._record.seek(0)
        try:
            return Version(**json.loads(self._record.read()))
        except (ValueError, TypeError):
            return None

    def restart(self, version: Version) -> None:
        """Begin again, empty, with another version."""
        self.discard()  # first, lest a kill leaves old bytes under a new version
        self.path.touch()
        self._record.write(json.dumps(dataclasses.asdict(version)).encode())

    def append(self, data: bytes) -> None:
        """Add bytes; they outlive a kill from then on."""
        with self.path.open("ab") as file:
            file.write(data)

    def discard(self) -> None:
        """Forget all of it."""
        self.path.unlink(missing_ok=True)
        self._record.truncate(0)

    def publish(self) -> None:
        """Give the file its final name, on the disk before it has it."""
        _sync(self.path)
        os.replace(self.path, self._final)
        _sync(self._final.parent)
        self._record.truncate(0)


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
