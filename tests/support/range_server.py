"""An HTTP server on 127.0.0.1 that serves files by ranges and fails as a test asks.

with range_server({"films.zip": archive}) as server:
    server.fail(Reply(cut=1000), Reply(503))     # the next two requests
    open_url(f"{server.url}/films.zip", scratch)
    server.requests                               # the requests, and the bytes sent for each
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

MODIFIED = formatdate(1_700_000_000, usegmt=True)


@dataclass(frozen=True)
class Reply:
    """How the response to one request differs from the correct one; by default it does not."""

    status: int = 0  # 0: the correct one
    headers: dict[str, str] = field(default_factory=dict)  # override the correct ones; "" drops one
    body: bytes | None = None
    flip: int | None = None  # index of a byte of the correct body in which one bit is flipped
    cut: int | None = None  # bytes sent before the connection closes
    delay: float = 0.0  # seconds before the response
    whole: bool = False  # ignore the Range header


@dataclass
class Request:
    operation: str  # GetDataset, DownloadDataset or storage
    authorization: str
    range: str
    start: int = 0  # offset in the file of the first byte sent
    sent: int = 0  # bytes of the file


@dataclass
class RangeServer:
    """The state of the server; `files`, by path, may change while it serves.

    Without `has_ranges` it ignores Range headers.
    """

    files: dict[str, bytes]
    has_ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)  # of every response; "" drops one
    delay: float = 0.0  # seconds before every response
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    replies: deque[Reply] = field(default_factory=deque)

    def fail(self, *replies: Reply) -> None:
        """Answer the next requests with these replies, one each; later ones correctly."""
        self.replies.extend(replies)

    @property
    def ranges(self) -> list[str]:
        return [request.range for request in self.requests]

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)


class ReplyingHandler(BaseHTTPRequestHandler):
    """Sends a response, changed by a Reply."""

    def log_message(self, *_: object) -> None:
        """Log nothing: a test may check stderr."""

    def respond(
        self, request: Request, reply: Reply, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        body = body if reply.body is None else reply.body
        if reply.flip is not None:
            body = body[: reply.flip] + bytes([body[reply.flip] ^ 1]) + body[reply.flip + 1 :]
        headers = {"Content-Length": str(len(body))} | headers | reply.headers
        body = body[: reply.cut]
        time.sleep(reply.delay)
        try:
            self.send_response(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            request.sent = len(body)
        except OSError:
            # The client closed the connection.
            self.close_connection = True


class RangeHandler(ReplyingHandler):
    server_state: RangeServer

    def do_GET(self) -> None:
        state = self.server_state
        request = Request(
            "storage", self.headers.get("Authorization", ""), self.headers.get("Range", "")
        )
        state.requests.append(request)
        reply = state.replies.popleft() if state.replies else Reply()
        time.sleep(state.delay)
        file = state.files.get(urlsplit(self.path).path.strip("/"))
        status = reply.status or (404 if file is None else 0)
        if status:
            self.respond(request, reply, status, {}, b"refused")
            request.sent = 0
        else:
            status, headers, body = self._file_or_range(file or b"", reply)
            span = headers.get("Content-Range", "bytes 0-").removeprefix("bytes ")
            request.start = int(span.partition("-")[0]) if status == 206 else 0
            self.respond(request, reply, status, headers, body)

    def _file_or_range(self, file: bytes, reply: Reply) -> tuple[int, dict[str, str], bytes]:
        """The correct status, headers and body."""
        digest = md5(file)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest.hex()}"',
            "Last-Modified": MODIFIED,
            "x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(digest).decode()}",
        } | self.server_state.headers
        is_current = self.headers.get("If-Range", "") in ("", headers["ETag"], MODIFIED)
        span = self.headers.get("Range") if is_current and self.server_state.has_ranges else None
        if reply.whole or not span:
            return 200, headers, file
        first, last = span.removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last or len(file)) + 1, len(file))
        if start >= len(file):
            return 416, headers | {"Content-Range": f"bytes */{len(file)}"}, b""
        part = {"Content-Range": f"bytes {start}-{stop - 1}/{len(file)}"}
        return 206, headers | part, file[start:stop]


@lru_cache(maxsize=8)
def md5(file: bytes) -> bytes:
    return hashlib.md5(file).digest()


@contextmanager
def range_server(files: Mapping[str, bytes], *, has_ranges: bool = True) -> Iterator[RangeServer]:
    state = RangeServer(dict(files), has_ranges)
    handler = type("Handler", (RangeHandler,), {"server_state": state})
    with served(handler) as state.url:
        yield state


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
