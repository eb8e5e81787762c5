"""S3, by the standard AWS variables: the only place that knows boto3.

Every object is addressed by its URI, s3://BUCKET/KEY. What S3 answers becomes the exceptions of
`jobs.errors` by one table. A put is atomic, so an object is either whole or absent.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions

from jobs.errors import BadDataError, ConfigError, ConflictError, JobError, NotFoundError
from jobs.runtime.parallel import ordered_map
from jobs.storage.s3_errors import to_job_error

log = logging.getLogger(__name__)

THREADS = 16
MULTIPART_BYTES = 64 * 2**20
BODY_ATTEMPTS = 4  # botocore retries a request, but not the reading of its body
CHUNK = 2**20  # bytes of a stream handed on at a time
DELETE_BATCH = 1000  # the most keys that S3's DeleteObjects takes

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

    def __init__(self, *, threads: int = THREADS) -> None:
        self.threads = threads
        self.retries = 0
        self._lock = threading.Lock()
        self._conditional: bool | None = None
        settings = botocore.config.Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=threads + 4,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        try:
            # boto3.client would keep the credentials of the first caller in this process.
            session = boto3.session.Session()
            self._client = session.client("s3", region_name=region, config=settings)
        except botocore.exceptions.InvalidRegionError as error:
            raise ConfigError(
                f"AWS_REGION (or AWS_DEFAULT_REGION) {region!r} is not a region: give us-east-1, "
                "or the one where the bucket lies"
            ) from error
        except botocore.exceptions.BotoCoreError as error:
            raise to_job_error(error, "S3's settings") from error
        except ValueError as error:
            endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
            raise ConfigError(
                f"AWS_ENDPOINT_URL {endpoint!r} is not a URL: give http://HOST:PORT"
            ) from error

    # One object

    def read(self, uri: str, *, sha256: str = "") -> bytes:
        """The object's bytes; BadDataError where they are not those of `sha256` (hex)."""
        return self.read_tagged(uri, sha256=sha256)[0]

    def read_tagged(self, uri: str, *, sha256: str = "") -> tuple[bytes, str]:
        """(bytes, ETag) of the object."""
        bucket, key = split_uri(uri)
        for attempt in range(1, BODY_ATTEMPTS + 1):
            answer = self._call("get_object", uri, Bucket=bucket, Key=key)
            try:
                data: bytes = answer["Body"].read()
                break
            except BODY_ERRORS as error:
                self._count_retries(1, uri)
                if attempt == BODY_ATTEMPTS:
                    raise to_job_error(error, uri) from error
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise BadDataError(
                f"{uri} is not what its manifest says: its sha256 is not {sha256}; it was changed "
                "or damaged after it was written: run the job that wrote it again with --force"
            )
        return data, answer["ETag"]

    def stat(self, uri: str) -> StoredObject:
        bucket, key = split_uri(uri)
        answer = self._call("head_object", uri, Bucket=bucket, Key=key)
        return StoredObject(uri, int(answer["ContentLength"]), answer["ETag"])

    def stream(self, found: StoredObject, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` (exclusive) in chunks, going on where a body was cut.

        Raises ConflictError where the object is no longer the one that was found.
        """
        fruitless = 0
        while start < stop:
            body = self._range(found, start, stop)
            try:
                with contextlib.closing(body):
                    for chunk in body.iter_chunks(CHUNK):
                        start, fruitless = start + len(chunk), 0
                        yield chunk
            except BODY_ERRORS as error:
                fruitless += 1
                self._count_retries(1, found.uri)
                if fruitless == BODY_ATTEMPTS:
                    raise to_job_error(error, found.uri) from error

    def _range(self, found: StoredObject, start: int, stop: int) -> Any:
        bucket, key = split_uri(found.uri)
        place = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}"}
        with contextlib.suppress(ConflictError):
            answer = self._call("get_object", found.uri, IfMatch=found.etag, **place)
            if answer["ETag"] == found.etag:
                return answer["Body"]
        raise ConflictError(f"{found.uri} was changed while it was read: start this again")

    def read_json(self, uri: str) -> Any:
        try:
            return json.loads(self.read(uri))
        except ValueError as error:
            raise BadDataError(f"{uri} does not hold JSON ({error})") from error

    def write(
        self,
        uri: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        if_absent: bool = False,
        if_etag: str = "",
    ) -> str:
        """Put the object, S3 checking its sha256 on arrival, and return its ETag.

        `if_absent` writes only where there is no object, `if_etag` only over the object with that
        ETag; ConflictError otherwise. Where this S3 has no conditional put both are let go.
        """
        bucket, key = split_uri(uri)
        condition: dict[str, str] = {}
        if (if_absent or if_etag) and self._has_conditional_put(uri):
            condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_etag}
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = self._call(
            "put_object",
            uri,
            Bucket=bucket,
            Key=key,
            # Of bytes botocore makes a copy, to send them with the header in one piece.
            Body=data if len(data) < CHUNK else io.BytesIO(data),
            ContentType=content_type,
            ChecksumSHA256=digest,
            **condition,
        )
        return str(answer["ETag"])

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
        """Upload a local file; a large one goes in parts, which are aborted on failure."""
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
        """Delete the objects; an absent one is no error, the first that is refused is raised."""
        by_bucket: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split_uri(uri)
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            for start in range(0, len(keys), DELETE_BATCH):
                batch = [{"Key": key} for key in keys[start : start + DELETE_BATCH]]
                request = {"Objects": batch, "Quiet": True}
                answer = self._call(
                    "delete_objects", f"s3://{bucket}", Bucket=bucket, Delete=request
                )
                if refused := answer.get("Errors"):
                    error = botocore.exceptions.ClientError({"Error": refused[0]}, "DeleteObjects")
                    raise to_job_error(error, f"s3://{bucket}/{refused[0]['Key']}")

    # Buckets

    def check_bucket(self, uri: str) -> None:
        """Raise NotFoundError or AccessError now rather than after an hour's work."""
        bucket, _ = split_uri(uri)
        self._call("head_bucket", f"s3://{bucket}", Bucket=bucket)

    def ensure_bucket(self, uri: str) -> None:
        bucket, _ = split_uri(uri)
        try:
            self.check_bucket(uri)
        except NotFoundError:
            self._call("create_bucket", f"s3://{bucket}", Bucket=bucket)

    # The seam to boto3

    def _call(self, operation: str, uri: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            answer = getattr(self._client, operation)(*arguments, **keywords)
        except (
            botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError,
            boto3.exceptions.Boto3Error,
            ValueError,
        ) as error:
            cause = error.__cause__ or error.__context__
            known = isinstance(cause, botocore.exceptions.ClientError)
            raise to_job_error(cause if known else error, uri) from error  # type: ignore[arg-type]
        if isinstance(answer, dict):
            retried = answer.get("ResponseMetadata", {}).get("RetryAttempts", 0)
            self._count_retries(retried, uri)
        return answer

    def _count_retries(self, count: int, uri: str) -> None:
        if count:
            with self._lock:
                self.retries += count
            log.warning("S3 was asked again %d times for %s", count, uri)

    def _has_conditional_put(self, uri: str) -> bool:
        """Probe once: the second of two puts that ask for absence must be refused."""
        with self._lock:
            known = self._conditional
        if known is None:
            known = self._probe_conditional_put(uri)
            with self._lock:
                if self._conditional is None and not known:
                    log.warning("This S3 has no conditional put: locking is off")
                self._conditional = known
        return known

    def _probe_conditional_put(self, uri: str) -> bool:
        bucket, key = split_uri(uri)
        folder = key.rpartition("/")[0]
        probe = f"{folder}/.probe-{uuid.uuid4().hex}".lstrip("/")
        try:
            for _ in range(2):
                self._client.put_object(Bucket=bucket, Key=probe, Body=b"", IfNoneMatch="*")
        except botocore.exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("PreconditionFailed", "412"):
                return True
            if code in ("NotImplemented", "501", "InvalidArgument"):
                return False
            raise to_job_error(error, uri) from error
        except botocore.exceptions.BotoCoreError as error:
            raise to_job_error(error, uri) from error
        finally:
            try:
                self.delete([f"s3://{bucket}/{probe}"])
            except JobError as error:  # who may write here need not be one who may delete
                log.warning("The probe for conditional puts, of 0 bytes, stays: %s", error)
        return False
