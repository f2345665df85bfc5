"""Downloads a file over HTTP: resumed after a break, published under its name only when checked."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import pathlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence

from mtm_jax.data.download import part as download_part
from mtm_jax.errors import UserError
from mtm_jax.io import cache
from mtm_jax.io import progress as progress_bar

# Says with a UserError what is wrong with the file of this path and sha256.
Check = Callable[[pathlib.Path, str], None]

_CHUNK = 1 << 16
_MEGABYTE = 10**6
_HEADWAY = 1 << 20  # bytes after which a server that breaks off again has earned new attempts


def fetch(
    urls: Sequence[str],
    final: pathlib.Path,
    *,
    check: Check,
    variable: str = "MTM_JAX_DATA",
    progress: bool = True,
    timeout: float = 20.0,
    attempts: int = 4,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Download `final` from the first of `urls` that serves it whole.

    What has arrived is kept beside it as `<final>.part`, which the next call continues, also after
    a kill. Processes that want the same file wait for each other, and one of them downloads it.

    Args:
        urls: the same file on several servers, http or https, the preferred one first.
        final: where the file will be.
        check: what a complete file must pass; its sha256 may come from a table.
        variable: the environment variable that chooses the folder of `final`, for errors.
        progress: whether to draw a progress bar.
        timeout: seconds without any data after which a connection is given up.
        attempts: how often in a row a connection may break before the next server's turn.
        pause: waits for that many seconds before the next attempt: 1, 2, 4, ...

    Returns:
        The sha256 of the file.

    Raises:
        UserError: no server gives a file that passes `check`, or the folder cannot be written.
    """
    reasons = []
    lock = final.with_name(f"{final.name}.part.lock")
    with _disk_errors(final, variable), download_part.locked(lock) as record:
        if final.exists():  # another process was first
            return _checked(final, check)
        part = download_part.Part(final, record)
        job = _Download(part, check, progress, timeout, attempts, pause)
        for url in urls:
            try:
                digest = job.take(url)
            except _Failed as error:
                reasons.append(f"{url} ({error})")
                continue
            part.publish()
            return digest
    raise UserError(
        f"no server gave {final.name}: {', '.join(reasons)}; place the file here: {final}, "
        f"or set {variable} to the folder that has it"
    )


@contextlib.contextmanager
def _disk_errors(final: pathlib.Path, variable: str) -> Iterator[None]:
    """Turn what the file system refuses into one sentence; the network's errors end before."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {final} ({error.strerror or error}); make room there or set {variable} "
            "to a folder that you may write to"
        ) from error


def _checked(path: pathlib.Path, check: Check) -> str:
    digest = cache.sha256(path)
    check(path, digest)
    return digest


class _Failed(Exception):
    """This server does not give the file; the next one may."""


class _Broken(Exception):
    """The answer was cut or cannot be used; the same server may do better."""


@dataclasses.dataclass(frozen=True)
class _Download:
    """One call of `fetch`."""

    part: download_part.Part
    check: Check
    progress: bool
    timeout: float
    attempts: int
    pause: Callable[[float], None]

    def take(self, url: str) -> str:
        """Complete and check the part from one server, and return its sha256; else _Failed."""
        failures = farthest = 0
        while True:
            try:
                return self._accept(self._receive(url))
            except _Broken as error:
                size = self.part.size
                failures = 1 if size >= farthest + _HEADWAY else failures + 1
                farthest = max(farthest, size)
                if failures >= self.attempts:
                    raise _Failed(str(error)) from error
            self.pause(2.0 ** (failures - 1))

    def _accept(self, offset: int) -> str:
        try:
            return _checked(self.part.path, self.check)
        except UserError as error:
            self.part.discard()
            # What was put together from several answers may be better in one piece.
            raise (_Broken if offset else _Failed)(str(error)) from error

    def _receive(self, url: str) -> int:
        """Make one request and append its body; return the size that the part had before."""
        with self._open(url) as response:
            offset = self._offset(url, response)
            if response.status != 416:
                self._append(response, offset)
        size, expected = self.part.size, self.part.version.size
        if expected is not None and size != expected:
            raise _Broken(f"the connection ended after {size} of {expected} bytes")
        return offset

    def _open(self, url: str) -> http.client.HTTPResponse | urllib.error.HTTPError:
        version, size = self.part.version, self.part.size
        resumes = size > 0 and version is not None and version.url == url
        headers = {"User-Agent": "mtm_jax"}
        if resumes:
            headers["Range"] = f"bytes={size}-"
            headers |= {"If-Range": version.validator} if version.validator else {}
        request = urllib.request.Request(url, headers=headers)
        try:
            return _opener().open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing lies beyond the part
                return error
            error.close()
            raise _Failed(f"HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:  # no connection: wait only where there is a part
            raise (_Broken if resumes else _Failed)(self._said(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(self._said(error)) from error

    def _offset(self, url: str, response: http.client.HTTPResponse) -> int:
        """Find where the body belongs in the part; empty the part for a new version."""
        start, version = _described(url, response)
        if response.status not in (200, 206, 416):
            raise _Failed(f"HTTP {response.status}")
        if response.status == 200:
            if response.headers.get_content_type() == "text/html":  # of a proxy, a login
                raise _Failed("it answered with a web page")
            self.part.restart(version)
            return 0
        known = self.part.version
        if start == self.part.size and known is not None and known.agrees(version):
            return start
        self.part.discard()
        raise _Broken(f"HTTP {response.status} does not continue what has arrived")

    def _append(self, response: http.client.HTTPResponse, size: int) -> None:
        total = self.part.version.size
        with self._bar(size, total) as bar:
            for data in self._chunks(response):
                self.part.append(data)
                size += len(data)
                if bar:
                    bar.update(_megabytes(total) if size >= total else size // _MEGABYTE)

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while data := response.read1(_CHUNK):
                yield data
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(self._said(error)) from error

    def _bar(self, size: int, total: int | None):
        if not self.progress or total is None:
            return contextlib.nullcontext()
        title, done = self.part.path.stem, size // _MEGABYTE
        return progress_bar.progress(_megabytes(total), title, done, unit="MB")

    def _said(self, error: object) -> str:
        if isinstance(error, TimeoutError):
            return f"no data for {self.timeout:g} s"
        return str(error) or type(error).__name__


def _opener() -> urllib.request.OpenerDirector:
    """Open http and https only, also after a redirect."""
    library = urllib.request
    proxies = {k: v for k, v in library.getproxies().items() if k in ("http", "https")}
    opener = library.OpenerDirector()
    for handler in (
        library.ProxyHandler(proxies),
        library.UnknownHandler(),
        library.HTTPHandler(),
        library.HTTPSHandler(),
        library.HTTPDefaultErrorHandler(),
        library.HTTPRedirectHandler(),
        library.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _described(
    url: str, response: http.client.HTTPResponse
) -> tuple[int | None, download_part.Version]:
    """Return an answer's first byte, None where it does not say, and the version it is of."""
    etag, modified = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    if response.status == 200:
        return 0, download_part.Version(url, etag, modified, response.length)
    text = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", text)
    if found is None:
        return None, download_part.Version(url, etag, modified)
    size = int(found[2])
    start = size if found[1] is None else int(found[1])  # "*": there is nothing more
    return start, download_part.Version(url, etag, modified, size)


def _megabytes(size: int) -> int:
    return -(-size // _MEGABYTE)
