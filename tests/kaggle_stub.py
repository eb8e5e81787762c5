"""A stand-in for Kaggle on 127.0.0.1 that speaks what kagglehub asks of it.

    with kaggle_stub({"owner/name": zip_bytes}) as stub:
        KaggleSource("kaggle://owner/name", scratch)                  # in this process, or
        subprocess.run(command, env=os.environ | stub.environment)    # in another one

Kaggle's client can be sent to http://localhost by a variable but not to a port, so the stub is also
that address's proxy. What is addressed as 127.0.0.1, such as a test's S3 server, goes past it.
Storage is a second server, at another host name, as it is at Kaggle.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import urlsplit

TOKEN = "KGAT_stub-token"
SIGNATURE = "stub-signature"
VERSION = 3
EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>"


@dataclass(frozen=True)
class Reply:
    """What one request is answered in place of the right answer."""

    status: int = 0  # 0: the right one
    headers: dict[str, str] = field(default_factory=dict)  # over the right ones; "" drops one
    body: bytes | None = None
    cut: int | None = None  # bytes sent before the connection ends
    delay: float = 0.0  # seconds before the answer
    whole: bool = False  # a Range is ignored


@dataclass(frozen=True)
class Request:
    what: str  # GetDataset, DownloadDataset or storage
    authorization: str
    range: str


@dataclass
class KaggleStub:
    """Serves each archive as version `VERSION` of its handle; `requests` tells what was asked."""

    archives: Mapping[str, bytes]
    environment: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    storage: str = ""
    _replies: dict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))

    def fail(self, what: str, *replies: Reply) -> None:
        """Answer the next requests for `what` with these, one each, then rightly again."""
        self._replies[what].extend(replies)

    def asked(self, what: str) -> list[Request]:
        return [request for request in self.requests if request.what == what]

    def next_reply(self, request: Request) -> Reply:
        self.requests.append(request)
        replies = self._replies[request.what]
        return replies.popleft() if replies else Reply()


class Handler(BaseHTTPRequestHandler):
    stub: KaggleStub

    def log_message(self, *_: object) -> None:
        """Say nothing: stderr belongs to the test."""

    def do_POST(self) -> None:
        what = urlsplit(self.path).path.rsplit("/", 1)[-1]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        handle = f"{asked.get('ownerSlug')}/{asked.get('datasetSlug')}"
        version = asked.get("datasetVersionNumber", VERSION)
        if handle not in self.stub.archives or version != VERSION:
            status, headers, body = _problem(404)
        elif what == "DownloadDataset":
            url = f"{self.stub.storage}/{handle}?X-Goog-Signature={SIGNATURE}"
            status, headers, body = 302, {"Location": url}, b""
        else:
            body = json.dumps({"currentVersionNumber": VERSION}).encode()
            status, headers = 200, {"Content-Type": "application/json"}
        self._answer(what, lambda reply: (status, headers, body))

    def do_GET(self) -> None:
        archive = self.stub.archives[urlsplit(self.path).path.strip("/")]
        digest = base64.b64encode(hashlib.md5(archive).digest()).decode()
        headers = {"Accept-Ranges": "bytes", "x-goog-hash": f"crc32c=AAAAAA==,md5={digest}"}
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") :].rstrip("-"))

        def right(reply: Reply) -> tuple[int, dict[str, str], bytes]:
            if not start or reply.whole:
                return 200, headers, archive
            part = {"Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"}
            return 206, headers | part, archive[start:]

        self._answer("storage", right)

    def _answer(
        self, what: str, right: Callable[[Reply], tuple[int, dict[str, str], bytes]]
    ) -> None:
        authorization = self.headers.get("Authorization", "")
        reply = self.stub.next_reply(Request(what, authorization, self.headers.get("Range", "")))
        status, headers, body = right(reply) if reply.status == 0 else _problem(reply.status)
        body = body if reply.body is None else reply.body
        headers = {"Content-Length": str(len(body))} | headers | reply.headers
        time.sleep(reply.delay)
        try:
            self.send_response(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: reply.cut])
        except OSError:
            self.close_connection = True  # the client has read enough


def _problem(status: int) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"code": status, "message": f"refused with {status}"}).encode()
    return status, {"Content-Type": "application/json"}, body


@contextmanager
def kaggle_stub(archives: Mapping[str, bytes]) -> Iterator[KaggleStub]:
    """Serve `archives` (handle: bytes of a zip); this process's Kaggle client is sent here."""
    stub = KaggleStub(archives)
    handler = type("StubHandler", (Handler,), {"stub": stub})
    with _served(handler) as api, _served(handler) as stub.storage:
        stub.environment = {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_API_TOKEN": TOKEN,
            **dict.fromkeys(("http_proxy", "HTTP_PROXY"), api),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1"),
        }
        with mock.patch.dict(os.environ, stub.environment):
            yield stub


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
