"""Objects in S3, addressed by their URIs: s3://BUCKET/KEY.

Errors of S3 and boto3 become the exceptions of `jobs.errors` by the table in `s3_errors`. A put is
atomic, so an object is either whole or absent.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
from urllib3.exceptions import HTTPError

from jobs import typed_json
from jobs.errors import (
    BadDataError,
    ConfigError,
    ConflictError,
    NotFoundError,
    RepeatableConflictError,
)
from jobs.runtime.parallel import ordered_map
from jobs.storage.conditional_put import has_conditional_put
from jobs.storage.s3_client import S3Settings, connect
from jobs.storage.s3_errors import REQUEST_ERRORS, foreign_answer, to_job_error

log = logging.getLogger(__name__)

THREADS = 16
# Files of at least this many bytes are uploaded in parts.
MULTIPART_BYTES = 64 * 2**20
# Reads of one body: botocore retries a request, but not the reading of its body.
BODY_ATTEMPTS = 4
# Bytes of a stream that are yielded at a time.
CHUNK = 2**20
# The most keys that S3's DeleteObjects accepts.
DELETE_BATCH = 1000
# S3 answers 409 to a conditional put beside another one of the same key, and asks to repeat it.
CONFLICT_ATTEMPTS = 4
CONFLICT_PAUSE = 0.2  # seconds, doubled each time
# What botocore leaves to its caller where the body of an error's response is cut.
CUT_ERRORS = (botocore.exceptions.ResponseStreamingError, HTTPError)
BODY_ERRORS = (
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ReadTimeoutError,
    botocore.exceptions.ResponseStreamingError,
    ConnectionError,
)


@dataclass(frozen=True)
class StoredObject:
    """One object in a listing."""

    uri: str
    bytes: int
    etag: str


def split_uri(uri: str) -> tuple[str, str]:
    """(bucket, key) of s3://BUCKET/KEY; ConfigError for any other form."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise ConfigError(f"{uri!r} is not an S3 URI: give s3://BUCKET/KEY")
    return bucket, key


class Store:
    """Objects in S3. One instance serves all threads."""

    def __init__(self, settings: S3Settings | None = None, *, threads: int = THREADS) -> None:
        """The S3 of `settings`; without them that of the standard AWS variables."""
        self.threads = threads
        self.retries = 0
        self._settings = settings
        self._lock = threading.Lock()
        self._conditional: bool | None = None
        self._client = connect(settings, connections=threads + 4)

    def environment(self) -> dict[str, str]:
        """The environment of a child process that is to use the same S3."""
        return self._settings.environment() if self._settings else dict(os.environ)

    # One object

    def read(self, uri: str, *, sha256: str = "") -> bytes:
        """The object's bytes; BadDataError where they are not those of `sha256` (hex)."""
        return self.read_tagged(uri, sha256=sha256)[0]

    def read_tagged(self, uri: str, *, sha256: str = "") -> tuple[bytes, str]:
        """(bytes, ETag) of the object."""
        bucket, key = split_uri(uri)
        for attempt in range(1, BODY_ATTEMPTS + 1):
            response = self._call("get_object", uri, Bucket=bucket, Key=key)
            try:
                data: bytes = response["Body"].read()
                break
            except BODY_ERRORS as error:
                self._count_retries(1, uri)
                if attempt == BODY_ATTEMPTS:
                    raise to_job_error(error, uri) from error
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise BadDataError(
                f"{uri} does not match its manifest: its sha256 is not {sha256}; it was changed "
                "or damaged after it was written: run the job that wrote it again with --force"
            )
        return data, response["ETag"]

    def stat(self, uri: str) -> StoredObject:
        """The object's size and ETag; NotFoundError where it is absent."""
        bucket, key = split_uri(uri)
        response = self._call("head_object", uri, Bucket=bucket, Key=key)
        if "ETag" not in response:
            raise foreign_answer(uri)
        return StoredObject(uri, int(response["ContentLength"]), response["ETag"])

    def stream(self, item: StoredObject, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` (exclusive) in chunks; a body that was cut is resumed.

        Raises ConflictError where the object was replaced since `item` was listed.
        """
        failures = 0  # in a row, without a byte between them
        while start < stop:
            body = self._range(item, start, stop)
            try:
                with contextlib.closing(body):
                    for chunk in body.iter_chunks(CHUNK):
                        start, failures = start + len(chunk), 0
                        yield chunk
            except BODY_ERRORS as error:
                failures += 1
                self._count_retries(1, item.uri)
                if failures == BODY_ATTEMPTS:
                    raise to_job_error(error, item.uri) from error

    def _range(self, item: StoredObject, start: int, stop: int) -> Any:
        """The body of a response with those bytes; its ETag is checked here and by S3."""
        bucket, key = split_uri(item.uri)
        request = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}"}
        with contextlib.suppress(ConflictError):
            response = self._call("get_object", item.uri, IfMatch=item.etag, **request)
            if response["ETag"] == item.etag:
                return response["Body"]
        raise ConflictError(f"{item.uri} was changed while it was read: start this again")

    def read_json(self, uri: str) -> Any:
        return typed_json.parse(self.read(uri), uri)

    def write(
        self,
        uri: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        if_absent: bool = False,
        if_etag: str = "",
    ) -> str:
        """Put the object and return its ETag; S3 checks its sha256 on arrival.

        `if_absent` writes only where there is no object, `if_etag` only over the object with that
        ETag; ConflictError otherwise. Both are ignored where this S3 has no conditional put.
        """
        bucket, key = split_uri(uri)
        condition: dict[str, str] = {}
        if (if_absent or if_etag) and self._has_conditional_put(uri):
            condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_etag}
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        put = functools.partial(
            self._call,
            "put_object",
            uri,
            Bucket=bucket,
            Key=key,
            ContentType=content_type,
            ChecksumSHA256=digest,
            **condition,
        )
        for attempt in range(1, CONFLICT_ATTEMPTS + 1):
            try:
                # botocore copies bytes, to send them in one piece with the header.
                response = put(Body=data if len(data) < CHUNK else io.BytesIO(data))
                break
            except RepeatableConflictError:
                if attempt == CONFLICT_ATTEMPTS:
                    raise
                time.sleep(CONFLICT_PAUSE * 2 ** (attempt - 1))
        return str(response["ETag"])

    def write_json(self, uri: str, value: Any, **conditions: Any) -> str:
        data = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).encode()
        return self.write(uri, data + b"\n", content_type="application/json", **conditions)

    def exists(self, uri: str) -> bool:
        try:
            self.stat(uri)
        except NotFoundError:
            return False
        return True

    # Files, in parts where they are large

    def upload(self, path: Path, uri: str) -> None:
        """Upload a local file; a large one in parts, which are aborted on failure."""
        bucket, key = split_uri(uri)
        if path.stat().st_size < MULTIPART_BYTES:
            self.write(uri, path.read_bytes())
        else:
            extra = {"ChecksumAlgorithm": "SHA256"}
            self._call("upload_file", uri, str(path), bucket, key, ExtraArgs=extra)

    def download(self, uri: str, path: Path) -> None:
        """Download an object to a temporary name beside `path`, then rename it."""
        bucket, key = split_uri(uri)
        partial = path.with_name(path.name + ".partial")
        try:
            self._call("download_file", uri, bucket, key, str(partial))
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    # Many objects

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose URI starts with `prefix`, in key order, page after page."""
        bucket, key = split_uri(prefix)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    uri = f"s3://{bucket}/{item['Key']}"
                    yield StoredObject(uri, int(item["Size"]), item["ETag"])
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise to_job_error(error, prefix) from error

    def read_many(self, uris: Iterable[str]) -> Iterator[bytes]:
        """The bytes of each object, in order, read by many threads ahead of the consumer."""
        return ordered_map(self.read, uris, threads=self.threads)

    def write_many(self, objects: Iterable[tuple[str, bytes]]) -> int:
        """Put (uri, data) pairs by many threads and return how many there were."""
        written = ordered_map(lambda item: self.write(*item), objects, threads=self.threads)
        return sum(1 for _ in written)

    def delete(self, uris: Iterable[str]) -> None:
        """Delete the objects; absent ones are ignored, the first refusal is raised."""
        by_bucket: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split_uri(uri)
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            for start in range(0, len(keys), DELETE_BATCH):
                batch = [{"Key": key} for key in keys[start : start + DELETE_BATCH]]
                request = {"Objects": batch, "Quiet": True}
                response = self._call(
                    "delete_objects", f"s3://{bucket}", Bucket=bucket, Delete=request
                )
                # S3 answers 200 with an error for each key that it did not delete.
                if refusals := response.get("Errors"):
                    error = botocore.exceptions.ClientError({"Error": refusals[0]}, "DeleteObjects")
                    raise to_job_error(error, f"s3://{bucket}/{refusals[0]['Key']}")

    # Buckets

    def check_bucket(self, uri: str) -> None:
        """Raise NotFoundError or AccessError where the URI's bucket cannot be used.

        Lists one key at most: HeadBucket needs the same permission, but its errors have no body
        that says what is wrong. Raises ConfigError where something else than S3 answers.
        """
        bucket, key = split_uri(uri)
        request = {"Bucket": bucket, "Prefix": key, "MaxKeys": 1}
        response = self._call("list_objects_v2", f"s3://{bucket}", **request)
        if "Name" not in response:
            raise foreign_answer(f"s3://{bucket}")

    def ensure_bucket(self, uri: str) -> None:
        bucket, _ = split_uri(uri)
        try:
            self.check_bucket(uri)
        except NotFoundError:
            self._call("create_bucket", f"s3://{bucket}", Bucket=bucket)

    # The seam to boto3

    def _call(self, operation: str, uri: str, *arguments: Any, **keywords: Any) -> Any:
        request = functools.partial(getattr(self._client, operation), *arguments, **keywords)
        try:
            response = self._repeat_where_cut(request, uri)
        except REQUEST_ERRORS as error:
            # boto3's transfers wrap the error that says what S3 answered.
            cause = error.__cause__ or error.__context__
            if isinstance(cause, botocore.exceptions.ClientError):
                raise to_job_error(cause, uri) from error
            raise to_job_error(error, uri) from error
        if isinstance(response, dict):
            retries = response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
            self._count_retries(retries, uri)
        return response

    def _repeat_where_cut(self, request: Callable[[], Any], uri: str) -> Any:
        for _ in range(BODY_ATTEMPTS - 1):
            try:
                return request()
            except CUT_ERRORS:
                self._count_retries(1, uri)
        return request()

    def _count_retries(self, count: int, uri: str) -> None:
        if count:
            with self._lock:
                self.retries += count
            log.warning("S3 requests were retried %d times for %s", count, uri)

    def _has_conditional_put(self, uri: str) -> bool:
        """Whether this S3 has conditional puts, probed at the first of them."""
        with self._lock:
            is_conditional = self._conditional
        if is_conditional is None:
            is_conditional = has_conditional_put(self._client, *split_uri(uri))
            with self._lock:
                if self._conditional is None and not is_conditional:
                    log.warning("This S3 has no conditional put: locking is off")
                self._conditional = is_conditional
        return is_conditional
