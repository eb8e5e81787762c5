"""A stand-in for Kaggle on 127.0.0.1 that speaks what kagglehub asks of it.

    with kaggle_stub({"owner/name": zip_bytes}) as stub:
        KaggleSource("kaggle://owner/name", scratch)                  # in this process, or
        subprocess.run(command, env=os.environ | stub.environment)    # in another one

Kaggle's client can be sent to http://localhost by a variable but not to a port, so the stub is also
that address's proxy. What is addressed as 127.0.0.1, such as a test's S3 server, goes past it.
Storage is a second server, at another host name, as it is at Kaggle.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock
from urllib.parse import urlsplit

from tests.support.range_server import (
    AnsweringHandler,
    RangeServer,
    Reply,
    Request,
    range_server,
    served,
)

TOKEN = "KGAT_stub-token"
SIGNATURE = "stub-signature"
VERSION = 3
EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>"


@dataclass
class KaggleStub:
    """Serves each archive as version `VERSION` of its handle; `requests` tells what was asked."""

    storage: RangeServer
    environment: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    _replies: dict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))

    def fail(self, what: str, *replies: Reply) -> None:
        """Answer the next requests for `what` with these, one each, then rightly again."""
        (self.storage.replies if what == "storage" else self._replies[what]).extend(replies)

    def asked(self, what: str) -> list[Request]:
        return [request for request in self.requests if request.what == what]

    def next_reply(self, request: Request) -> Reply:
        self.requests.append(request)
        replies = self._replies[request.what]
        return replies.popleft() if replies else Reply()


class Handler(AnsweringHandler):
    stub: KaggleStub

    def do_POST(self) -> None:  # noqa: N802
        what = urlsplit(self.path).path.rsplit("/", 1)[-1]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        handle = f"{asked.get('ownerSlug')}/{asked.get('datasetSlug')}"
        version = asked.get("datasetVersionNumber", VERSION)
        request = Request(what, self.headers.get("Authorization", ""), "")
        reply = self.stub.next_reply(request)
        if reply.status:
            status, headers, body = _problem(reply.status)
        elif handle not in self.stub.storage.files or version != VERSION:
            status, headers, body = _problem(404)
        elif what == "DownloadDataset":
            url = f"{self.stub.storage.url}/{handle}?X-Goog-Signature={SIGNATURE}"
            status, headers, body = 302, {"Location": url}, b""
        else:
            body = json.dumps({"currentVersionNumber": VERSION}).encode()
            status, headers = 200, {"Content-Type": "application/json"}
        self.answer(request, reply, status, headers, body)


def _problem(status: int) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"code": status, "message": f"refused with {status}"}).encode()
    return status, {"Content-Type": "application/json"}, body


@contextmanager
def kaggle_stub(archives: Mapping[str, bytes]) -> Iterator[KaggleStub]:
    """Serve `archives` (handle: bytes of a zip); this process's Kaggle client is sent here."""
    with range_server(archives) as storage:
        stub = KaggleStub(storage)
        storage.requests = stub.requests
        with served(type("StubHandler", (Handler,), {"stub": stub})) as api:
            stub.environment = {
                "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
                "KAGGLE_API_TOKEN": TOKEN,
                **dict.fromkeys(("http_proxy", "HTTP_PROXY"), api),
                **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1"),
            }
            with mock.patch.dict(os.environ, stub.environment):
                yield stub
