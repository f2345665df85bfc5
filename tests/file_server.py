"""A web server on this machine that serves one file, well or badly, as a test orders."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading

PATIENCE = 20.0  # seconds after which nothing here waits any longer


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under every path; `orders` say how the next requests are answered.

    Attributes:
        seen: [(path, headers)] of every request.
        released: ends every stall.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.modified = content, '"one"', ""
        self.orders, self.seen = [], []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers["Range"] for _, headers in self.seen]

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


@contextlib.contextmanager
def serving(content: bytes):
    server = Server(content)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers))
        order = self.server.orders.pop(0) if self.server.orders else answer
        order(self)

    def log_message(self, *args):
        """Keep quiet."""

    def start(self, status: int, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def answer(handler, limit=None, ranges=True, if_range=True, length=True, stall=False):
    """Serve the file, or at most `limit` bytes of what was asked for."""
    server, size = handler.server, len(handler.server.content)
    about = {"ETag": server.etag, "Last_Modified": server.modified}
    about = {name: value for name, value in about.items() if value}
    start = _start(handler, if_range) if ranges else 0
    if start >= size:
        return handler.start(416, Content_Range=f"bytes */{size}", **about)
    if length:
        about["Content_Length"] = size - start if length is True else length
    if start:
        about["Content_Range"] = f"bytes {start}-{size - 1}/{size}"
    handler.start(206 if start else 200, **about)
    handler.wfile.write(server.content[start:][:limit])
    if stall:
        server.released.wait(PATIENCE)
        handler.wfile.write(server.content[start:][limit:])


def _start(handler, if_range: bool) -> int:
    wanted, condition = handler.headers["Range"], handler.headers["If-Range"]
    current = (None, handler.server.etag, handler.server.modified)
    if wanted is None or (if_range and condition not in current):
        return 0
    return int(wanted.removeprefix("bytes=").removesuffix("-"))


def cut(limit: int):
    """Break off after `limit` bytes."""
    return functools.partial(answer, limit=limit)


def status(code: int):
    return lambda handler: handler.start(code, Content_Length=0)


def page(kind: str):
    """Answer with a web page of that content type."""

    def order(handler):
        handler.start(200, Content_Type=kind, Content_Length=12)
        handler.wfile.write(b"<html>hello ")

    return order


def redirect(target: str):
    return lambda handler: handler.start(302, Location=target, Content_Length=0)
