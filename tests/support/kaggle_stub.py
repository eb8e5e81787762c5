"""A stub of Kaggle on 127.0.0.1 with the part of its protocol that kagglehub uses.

    with kaggle_stub({"owner/name": zip_bytes}) as stub:
        KaggleSource("kaggle://owner/name", scratch)                  # in this process, or
        subprocess.run(command, env=os.environ | stub.environment)    # in another one

A variable directs Kaggle's client to http://localhost, but to no port, so the stub is also the HTTP
proxy for that address. Requests to 127.0.0.1, such as those to a test's S3 server, bypass the
proxy. Storage is a second server with another host name, as at Kaggle.
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
    RangeServer,
    Reply,
    ReplyingHandler,
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
    """Serves each archive as version VERSION of its handle; `requests` lists all requests."""

    storage: RangeServer
    environment: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    _replies: dict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))

    def fail(self, operation: str, *replies: Reply) -> None:
        """Answer the next requests for `operation` with these replies, one each."""
        is_storage = operation == "storage"
        queue = self.storage.replies if is_storage else self._replies[operation]
        queue.extend(replies)

    def requests_for(self, operation: str) -> list[Request]:
        return [request for request in self.requests if request.operation == operation]

    def next_reply(self, request: Request) -> Reply:
        self.requests.append(request)
        replies = self._replies[request.operation]
        return replies.popleft() if replies else Reply()


class Handler(ReplyingHandler):
    stub: KaggleStub

    def do_POST(self) -> None:  # noqa: N802
        operation = urlsplit(self.path).path.rsplit("/", 1)[-1]
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        handle = f"{fields.get('ownerSlug')}/{fields.get('datasetSlug')}"
        version = fields.get("datasetVersionNumber", VERSION)
        request = Request(operation, self.headers.get("Authorization", ""), "")
        reply = self.stub.next_reply(request)
        if reply.status:
            status, headers, body = _error(reply.status)
        elif handle not in self.stub.storage.files or version != VERSION:
            status, headers, body = _error(404)
        elif operation == "DownloadDataset":
            url = f"{self.stub.storage.url}/{handle}?X-Goog-Signature={SIGNATURE}"
            status, headers, body = 302, {"Location": url}, b""
        else:
            body = json.dumps({"currentVersionNumber": VERSION}).encode()
            status, headers = 200, {"Content-Type": "application/json"}
        self.respond(request, reply, status, headers, body)


def _error(status: int) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"code": status, "message": f"refused with {status}"}).encode()
    return status, {"Content-Type": "application/json"}, body


@contextmanager
def kaggle_stub(archives: Mapping[str, bytes]) -> Iterator[KaggleStub]:
    """Serve {handle: zip}; the process's environment directs Kaggle's client to the stub."""
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
