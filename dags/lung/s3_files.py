"""Reads objects for a page of Airflow, within limits of time and size."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import Any

from lung.contract import S3_CONNECTION, bucket_and_key, connection, s3_client

# A person waits for the page.
CONNECT_SECONDS, READ_SECONDS = 2, 5
# For all reads of one page together.
PAGE_SECONDS = 20
MIB = 2**20


class UnreadableError(Exception):
    """S3 or one of its objects cannot be read; every reader of the run may see the message."""


class S3Files:
    """The objects that one page reads.

    An object that does not exist is None. Raises UnreadableError where S3 fails. Threads may share
    one instance.
    """

    def __init__(self) -> None:
        self._client = _client()
        self._deadline = time.monotonic() + PAGE_SECONDS

    def read(self, uri: str, limit: int) -> bytes | None:
        """The whole object; UnreadableError where it has more than `limit` bytes."""
        data = self._get(uri, limit)
        if data is not None and len(data) > limit:
            raise UnreadableError(f"{uri} is larger than {limit // MIB} MiB: open it in its bucket")
        return data

    def read_json(self, uri: str, limit: int) -> Any:
        data = self.read(uri, limit)
        try:
            return None if data is None else json.loads(data)
        except (RecursionError, ValueError) as error:
            raise UnreadableError(f"{uri} does not hold JSON") from error

    def read_range(self, uri: str, start: int, stop: int) -> bytes | None:
        """Bytes `start` to `stop`, exclusive; fewer where the object ends before."""
        return self._get(uri, stop - start, Range=f"bytes={start}-{stop - 1}")

    def count(self, prefix: str, limit: int) -> int:
        """How many objects there are whose URIs start with the prefix, at most `limit`."""
        parts = bucket_and_key(prefix)

        def listed() -> int:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=parts["Bucket"],
                Prefix=parts["Key"],
                PaginationConfig={"MaxItems": limit},
            )
            return sum(len(page.get("Contents", ())) for page in pages)

        found: int | None = self._call(listed, prefix)
        return found or 0

    def _get(self, uri: str, most: int, **request: str) -> bytes | None:
        """At most `most` + 1 bytes of an object."""

        def get() -> bytes:
            answer = self._client.get_object(**bucket_and_key(uri), **request)
            with answer["Body"] as body:
                data: bytes = body.read(most + 1)
            return data

        data: bytes | None = self._call(get, uri)
        return data

    def _call(self, request: Callable[[], Any], uri: str) -> Any:
        """The answer to a request; None where S3 has no such key or no bytes in the range."""
        from botocore.exceptions import BotoCoreError, ClientError

        if time.monotonic() > self._deadline:
            raise UnreadableError(f"S3 took more than {PAGE_SECONDS} s for the page")
        try:
            return request()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            if code in ("NoSuchKey", "InvalidRange"):
                return None
            raise UnreadableError(f"S3 answered {code} for {uri}") from error
        except (BotoCoreError, OSError) as error:
            raise UnreadableError(f"S3 does not give {uri}: {type(error).__name__}") from error


def _client() -> Any:
    """An S3 client of the connection with short timeouts and no retry."""
    from botocore.exceptions import BotoCoreError

    # Without the connection the hook would use the server's own AWS credentials.
    lung_s3 = connection(S3_CONNECTION)
    if lung_s3 is None:
        raise UnreadableError(f"The connection {S3_CONNECTION!r} is not defined")
    try:
        return _client_of(lung_s3.get_uri())
    except (BotoCoreError, ValueError) as error:
        kind = type(error).__name__
        raise UnreadableError(f"The connection {S3_CONNECTION!r} is not valid: {kind}") from error


@functools.lru_cache(maxsize=1)
def _client_of(uri: str) -> Any:
    """The client for as long as the connection has this URI: building one takes 100 ms and more."""
    return s3_client(connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, attempts=1)
