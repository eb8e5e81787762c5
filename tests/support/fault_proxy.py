"""An HTTP proxy on 127.0.0.1 between a job and its S3 that damages the objects a test names.

with fault_proxy(s3["AWS_ENDPOINT_URL"]) as proxy:
    proxy.faults["a.png"] = Fault(flip, times=1)     # the next read of .../a.png
    store = Store(S3Settings(proxy.url, ...))
    proxy.reads["a.png"]                              # how often it was read
"""

from __future__ import annotations

import http.client
import math
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# Headers of one connection, which are not passed on; http.server answers HTTP/1.1 by itself.
HOP = {"connection", "transfer-encoding", "keep-alive"}
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def same(body: bytes, number: int) -> bytes:
    return body


def flip(body: bytes, number: int) -> bytes:
    """One bit in the middle of the body differs, the same one each time."""
    return _with_flipped(body, len(body) // 2)


def flip_elsewhere(body: bytes, number: int) -> bytes:
    """One bit differs, another one in each answer, numbered from 1."""
    return _with_flipped(body, len(body) // 2 + number)


def shorten(body: bytes, number: int) -> bytes:
    """The first half, which the response announces as if it were the whole."""
    return body[: len(body) // 2]


def _with_flipped(body: bytes, index: int) -> bytes:
    return body[:index] + bytes([body[index] ^ 1]) + body[index + 1 :]


@dataclass
class Fault:
    """What happens to the first `times` reads of an object.

    change: the body that is sent, of the body and the number of the read.
    cut: the connection ends in the middle of the body; `reset` by a TCP reset.
    headers: override those of the response; "" drops one.
    """

    change: Callable[[bytes, int], bytes] = same
    times: float = math.inf
    cut: bool = False
    reset: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FaultProxy:
    """`faults` and `reads` go by the end of an object's key."""

    upstream: str  # HOST:PORT
    url: str = ""
    faults: dict[str, Fault] = field(default_factory=dict)
    reads: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of(self, path: str) -> tuple[Fault, int]:
        """(the fault of a read of this path, the number of the read)."""
        for name, fault in self.faults.items():
            if path.endswith(name):
                with self.lock:
                    self.reads[name] += 1
                    number = self.reads[name]
                return (fault if number <= fault.times else Fault()), number
        return Fault(), 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def log_message(self, *_: object) -> None:
        """Log nothing: a test may check stderr."""

    def forward(self) -> None:
        status, headers, body = self._answer_of_s3()
        fault, number = Fault(), 0
        if self.command == "GET" and status < 300:
            fault, number = self.proxy.fault_of(urlsplit(self.path).path)
            body = fault.change(body, number)
            headers |= {"Content-Length": str(len(body))}
        self.send_response_only(status)
        for name, value in {**headers, **fault.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault.cut or fault.reset else body)
        if fault.cut or fault.reset:
            self._close(fault)

    def _answer_of_s3(self) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.proxy.upstream)
        try:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            # The signature covers Host: it is passed on as it was sent.
            connection.request(self.command, self.path, sent, dict(self.headers.items()))
            answer = connection.getresponse()
            headers = {
                name.title(): value
                for name, value in answer.getheaders()
                if name.lower() not in HOP
            }
            body = answer.read()
        finally:
            connection.close()
        return answer.status, {"Content-Length": str(len(body))} | headers, body

    def _close(self, fault: Fault) -> None:
        self.wfile.flush()
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.connection.close()
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815


@contextmanager
def fault_proxy(endpoint_url: str) -> Iterator[FaultProxy]:
    """Serve until the block is left; `endpoint_url` is that of the S3 behind it."""
    proxy = FaultProxy(urlsplit(endpoint_url).netloc)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield proxy
        server.shutdown()
        thread.join()
