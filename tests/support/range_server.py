"""Files served on 127.0.0.1 as storage serves them, by ranges, and as badly as a test wants.

with range_server({"films.zip": archive}) as server:
    server.fail(Reply(cut=1000), Reply(503))     # the next two requests
    open_url(f"{server.url}/films.zip", scratch)
    server.requests                               # what was asked, and how much was sent
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
    """What one request is answered in place of the right answer."""

    status: int = 0  # 0: the right one
    headers: dict[str, str] = field(default_factory=dict)  # over the right ones; "" drops one
    body: bytes | None = None
    flip: int | None = None  # this byte of the right body is another
    cut: int | None = None  # bytes sent before the connection ends
    delay: float = 0.0  # seconds before the answer
    whole: bool = False  # a Range is ignored


@dataclass
class Request:
    what: str  # GetDataset, DownloadDataset or storage
    authorization: str
    range: str
    start: int = 0  # where in the file they began
    sent: int = 0  # bytes of the file


@dataclass
class RangeServer:
    """`files` by their path may be changed while it serves; `has_ranges` False ignores Range."""

    files: dict[str, bytes]
    has_ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)  # of every answer; "" drops one
    delay: float = 0.0  # seconds before every answer
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    replies: deque[Reply] = field(default_factory=deque)

    def fail(self, *replies: Reply) -> None:
        """Answer the next requests with these, one each, then rightly again."""
        self.replies.extend(replies)

    @property
    def ranges(self) -> list[str]:
        return [request.range for request in self.requests]

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)


class AnsweringHandler(BaseHTTPRequestHandler):
    """Sends an answer as a Reply bends it."""

    def log_message(self, *_: object) -> None:
        """Say nothing: stderr belongs to the test."""

    def answer(
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
            self.close_connection = True  # the client has read enough


class RangeHandler(AnsweringHandler):
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
            self.answer(request, reply, status, {}, b"refused")
            request.sent = 0
        else:
            status, headers, body = self._right(file or b"", reply)
            span = headers.get("Content-Range", "bytes 0-").removeprefix("bytes ")
            request.start = int(span.partition("-")[0]) if status == 206 else 0
            self.answer(request, reply, status, headers, body)

    def _right(self, file: bytes, reply: Reply) -> tuple[int, dict[str, str], bytes]:
        digest = md5(file)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest.hex()}"',
            "Last-Modified": MODIFIED,
            "x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(digest).decode()}",
        } | self.server_state.headers
        is_current = self.headers.get("If-Range", "") in ("", headers["ETag"], MODIFIED)
        asked = self.headers.get("Range") if is_current and self.server_state.has_ranges else None
        if reply.whole or not asked:
            return 200, headers, file
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last or len(file)) + 1, len(file))
        if start >= len(file):
            return 416, headers | {"Content-Range": f"bytes */{len(file)}"}, b""
        part = {"Content-Range": f"bytes {start}-{stop - 1}/{len(file)}"}
        return 206, headers | part, file[start:stop]


@lru_cache(maxsize=8)
def md5(file: bytes) -> bytes:
    return hashlib.md5(file).digest()


@contextmanager
def range_server(files: Mapping[str, bytes], **settings: bool) -> Iterator[RangeServer]:
    state = RangeServer(dict(files), **settings)  # type: ignore[arg-type]
    handler = type("Handler", (RangeHandler,), {"server_state": state})
    with served(handler) as state.url:
        yield state


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
