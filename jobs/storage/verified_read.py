"""Reads whose bytes are checked: one that fails its check is repeated once.

The same wrong bytes twice: the object is damaged, and its check's error is raised (65). Other wrong
bytes: the way from S3 is damaged (69), and a job that is started again may get through.

What S3 knows of an object: a checksum, if it was uploaded with one, which botocore compares itself
(CRC32, SHA1, SHA256; CRC32C and CRC64NVME only with awscrt), and the MD5 that its ETag is if it was
put in one piece and not encrypted by a key of KMS or of the client. Of a multipart object without a
checksum of the whole S3 knows neither: only its length is checked, and what it decodes to.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import FlexibleChecksumError

from jobs.errors import BadDataError, ServiceUnavailableError
from jobs.storage.bounds import check_size
from jobs.storage.s3_errors import foreign_answer

log = logging.getLogger(__name__)

MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')
# Encryption under which the ETag of an object in one piece is still its MD5 (SSE-S3, or none).
PLAIN_ENCRYPTION = ("", "AES256")
# The ending of a directory bucket's name: ETags there are no hashes.
DIRECTORY_BUCKET = "--x-s3"
FORCE = "run the job that wrote it again with --force"
UPLOAD = f"upload it again or leave it out of the source; if a job wrote it, {FORCE}"
WAY = "check the proxies, network and memory between S3 and this job, then start it again"

Received = TypeVar("Received", bound=Hashable)
T = TypeVar("T")


class DamagedObjectError(BadDataError):
    """An object's bytes are, each time they are read, not those of its hash."""


class DamagedTransferError(ServiceUnavailableError):
    """An object's bytes are cut, or change, on their way from S3."""


@dataclass(frozen=True)
class Mismatch:
    """Two values of one hash; `hash_name` is MD5, sha256, CRC32 and the like."""

    hash_name: str
    expected: str
    found: str


@dataclass(frozen=True)
class Reading:
    """One read of an object.

    md5: hex, as its ETag tells it; "" where that tells none, or where a checksum was compared.
    mismatch: of the stored checksum, as botocore found it; `data` is then empty.
    """

    data: bytes
    etag: str
    md5: str = ""
    mismatch: Mismatch | None = None


def read_checked(
    name: str,
    read: Callable[[], Received],
    check: Callable[[Received], T],
    refusal: type[Exception] = BadDataError,
) -> T:
    """What `check` returns for what was read; where it raises `refusal`, of a second read.

    Raises the refusal where both reads brought the same, and DamagedTransferError where they
    differ and both are refused. `name` is the object's in messages.
    """
    received = read()
    try:
        return check(received)
    except refusal as error:
        first = error.with_traceback(None)
    # Not the bytes: a film may have 128 MB.
    digest = hash(received)
    del received
    log.info("reading %s again: %s", name, first)
    received = read()
    if hash(received) == digest:
        raise first
    try:
        result = check(received)
    except refusal as second:
        problem = f"{name} arrived with other bytes at each read ({first}; then {second})"
        raise DamagedTransferError(f"{problem}: {WAY}") from second
    log.warning("%s was right at the second read: the first was changed on the way", name)
    return result


def receive(response: Mapping[str, Any], uri: str, largest: int = 0) -> Reading:
    """The body of a response to GetObject, whole, with what S3 knows of it.

    Raises BadDataError, before it is read, where it is too large; see `check_size` in `bounds`.
    """
    if "ETag" not in response:
        raise foreign_answer(uri)
    check_size(uri, int(response["ContentLength"]), largest)
    body, etag = response["Body"], str(response["ETag"])
    # botocore's body for objects whose stored checksum it compares.
    is_compared = hasattr(body, "checksum")
    try:
        data = body.read()
    except FlexibleChecksumError as error:
        found = body.checksum.b64digest()
        return Reading(b"", etag, mismatch=_mismatch(response, str(error), found))
    return Reading(data, etag, md5="" if is_compared else _md5_of(response, uri))


def check_sha256(reading: Reading, uri: str, sha256: str) -> Reading:
    """The reading; DamagedObjectError where its sha256 is not the one given (hex)."""
    found = hashlib.sha256(reading.data).hexdigest()
    if found != sha256:
        raise DamagedObjectError(
            f"{uri} does not match its manifest: its sha256 is {found}, not {sha256}; it was "
            f"changed or damaged after it was written: {FORCE}"
        )
    return reading


def check_stored(reading: Reading, uri: str) -> Reading:
    """The reading; DamagedObjectError where its bytes are not those that S3 knows of."""
    mismatch = reading.mismatch
    if not mismatch and reading.md5:
        found = hashlib.md5(reading.data, usedforsecurity=False).hexdigest()
        mismatch = Mismatch("MD5", reading.md5, found) if found != reading.md5 else None
    if mismatch:
        raise DamagedObjectError(
            f"{uri} is damaged: its {mismatch.hash_name} is {mismatch.found}, S3 has "
            f"{mismatch.expected}: {UPLOAD}"
        )
    return reading


def _mismatch(response: Mapping[str, Any], problem: str, found: str) -> Mismatch:
    """Of the checksum that botocore compared, base64; `problem` is its error, with the value."""
    stored = {
        name.removeprefix("Checksum"): str(value)
        for name, value in response.items()
        if name.startswith("Checksum") and str(value) in problem
    }
    hash_name, expected = next(iter(stored.items()), ("checksum", "another"))
    return Mismatch(hash_name, expected, found)


def _md5_of(response: Mapping[str, Any], uri: str) -> str:
    """The MD5 (hex) that the response's ETag is, "" where it is none."""
    is_plain = response.get("ServerSideEncryption", "") in PLAIN_ENCRYPTION
    bucket = uri.removeprefix("s3://").partition("/")[0]
    match = MD5_ETAG.fullmatch(response["ETag"])
    if not match or not is_plain or "SSECustomerAlgorithm" in response:
        return ""
    return "" if bucket.endswith(DIRECTORY_BUCKET) else match[1]
