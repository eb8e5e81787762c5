"""A zip at a URL: read by ranges if the server has them, else downloaded whole to scratch.

Every range asks for the version of the first response (ETag or date, and size). If the archive is
replaced while it is read, the job ends and is started again: two versions are never mixed.
A whole download is verified by its md5 if the server sends one, else by every member's CRC-32.
"""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jobs.errors import AccessError, ConfigError, ConflictError, JobError, NotFoundError
from jobs.sources.archive import ZipSource
from jobs.sources.byte_ranges import FileRanges
from jobs.sources.partial_download import CHUNK, PartialDownload
from jobs.sources.retries import Retries
from jobs.sources.zip_member import DamagedError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

# Seconds to connect, and between two reads.
TIMEOUT = (10, 60)
# Connections kept open; more threads than that open more.
CONNECTIONS = 32
WRONG_RANGE = "the response has another range than requested"


@dataclass(frozen=True)
class Version:
    """The state of a file as its server describes it; "" or 0 for what the server does not send.

    `size` is in bytes; `modified` is the Last-Modified date.
    """

    size: int
    etag: str
    modified: str

    @classmethod
    def of(cls, response: requests.Response) -> Version:
        # Content-Range: bytes START-END/SIZE
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        size = total if response.status_code == 206 else response.headers.get("Content-Length", "")
        etag, modified = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
        return cls(int(size) if size.isdecimal() else 0, etag, modified)

    def differs(self, other: Version) -> bool:
        """Whether a property that both versions have differs."""
        pairs = (
            (self.size, other.size),
            (self.etag, other.etag),
            (self.modified, other.modified),
        )
        return any(first and second and first != second for first, second in pairs)

    def condition(self) -> dict[str, str]:
        """The If-Range header: a server with another version sends the whole file.

        A weak ETag may not be used there (RFC 9110, 13.1.5).
        """
        validator = self.modified if self.etag.startswith("W/") else self.etag or self.modified
        return {"If-Range": validator} if validator else {}


class WebFile:
    """ByteRanges over HTTP; `get_url` is called again if the server refuses the current URL."""

    def __init__(self, retries: Retries, get_url: Callable[[], str]) -> None:
        import requests

        self.name = retries.name
        self._retries = retries
        self._get_url = get_url
        self._url = ""
        self._version = Version(0, "", "")
        self._lock = threading.Lock()
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    @property
    def size(self) -> int:
        return self._version.size

    def has_ranges(self) -> bool:
        """Request the first byte; the response shows size, version and whether ranges work."""
        return self._retries.run(self._probe)

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        import requests

        fruitless = 0
        while start < stop:
            try:
                for chunk in self._range(start, stop):
                    start, fruitless = start + len(chunk), 0
                    yield chunk
            except (requests.RequestException, DamagedError) as error:
                fruitless += 1
                self._retries.pause(error, fruitless)

    def download(self, path: Path) -> None:
        """Download the whole file and verify it; an attempt resumes the one before if it can."""
        part = PartialDownload(path, self.name)
        self._retries.run(lambda: self._fetch(part), lambda: part.size)

    def close(self) -> None:
        self._session.close()

    def _probe(self) -> bool:
        with self._get({"Range": "bytes=0-0"}) as response:
            # 416: the file is empty.
            if response.status_code != 416:
                response.raise_for_status()
            self._version = Version.of(response)
            return response.status_code == 206 and self._version.size > 0

    def _range(self, start: int, stop: int) -> Iterator[bytes]:
        """One attempt to read a range; DamagedError if the response has another range."""
        headers = {"Range": f"bytes={start}-{stop - 1}"} | self._version.condition()
        with self._get(headers) as response:
            if response.status_code in (412, 416) or response.ok:
                self._check_version(response)
            response.raise_for_status()
            span = re.match(r"bytes (\d+)-(\d+)/", response.headers.get("Content-Range", ""))
            if response.status_code != 206 or not span or int(span[1]) != start:
                raise DamagedError(WRONG_RANGE)
            for chunk in response.iter_content(CHUNK):
                start += len(chunk)
                if start > stop:
                    raise DamagedError(WRONG_RANGE)
                yield chunk
        if start <= int(span[2]):
            raise DamagedError("the body is truncated")

    def _fetch(self, part: PartialDownload) -> None:
        """One attempt to download the rest of the file, or all of it, and to verify it."""
        offset = part.size
        resume = {"Range": f"bytes={offset}-"} | self._version.condition() if offset else {}
        with self._get(resume) as response:
            is_other = response.status_code == 416 or self._version.differs(Version.of(response))
            if offset and is_other:
                part.discard()
                raise DamagedError("the file has changed since the first attempt")
            part.save(response)
            self._version = Version.of(response)
        part.verify(self._version.size, response.headers.get("x-goog-hash", ""))

    def _get(self, headers: dict[str, str]) -> requests.Response:
        with self._lock:
            self._url = url = self._url or self._get_url()
        # Without compression: ranges and sizes count the bytes of the file itself.
        headers = {"Accept-Encoding": "identity"} | headers
        response = self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        if 400 <= response.status_code < 500:
            # Another thread may have fetched a new URL since.
            with self._lock:
                self._url = "" if self._url == url else self._url
        return response

    def _check_version(self, response: requests.Response) -> None:
        if response.status_code in (412, 416) or self._version.differs(Version.of(response)):
            raise ConflictError(f"{self.name} was changed while it was read: start this again")


def open_file(file: WebFile, scratch: Path) -> ZipSource:
    """Open the zip at `file`: by ranges or, without them, after a download to folder `scratch`."""
    try:
        if file.has_ranges():
            return ZipSource(file)
        log.info("%s: the server has no ranges; downloading the whole file first", file.name)
        path = Path(tempfile.mkdtemp(dir=scratch)) / "archive.part"
        file.download(path)
    except BaseException:
        file.close()
        raise
    file.close()
    return ZipSource(FileRanges(path, file.name))


def open_url(uri: str, scratch: Path) -> ZipSource:
    """Open the zip at https://HOST/PATH or http://HOST/PATH.

    Messages and log lines never show the password or the query of the URL.
    """
    name = _name_of(uri)
    retries = Retries(name, lambda error: _refusal(name, error))
    return open_file(WebFile(retries, lambda: uri), scratch)


def _name_of(uri: str) -> str:
    """The URL without user, password and query; ConfigError if it cannot be requested."""
    import requests

    try:
        parts = urlsplit(uri)
        prepared = requests.Request("GET", uri).prepare().url
        # requests leaves this check of the host to the socket, which would be retried.
        str(urlsplit(prepared).hostname).encode("idna")
    except ValueError:  # the base class of requests.InvalidURL
        shown = re.split("[?#]", re.sub("//.*@", "//", uri))[0]
        raise ConfigError(
            f"source {shown!r} has the wrong form: give https://HOST/PATH.zip, a port as a number "
            "and, in a password, / as %2F, ? as %3F, # as %23 and @ as %40"
        ) from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _refusal(name: str, error: Exception) -> JobError | None:
    """The error that ends the job at once, or None if another attempt may succeed."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return AccessError(
            f"{name}: its certificate is not trusted: give the file of your authority's "
            "certificates as REQUESTS_CA_BUNDLE"
        )
    response = getattr(error, "response", None)
    status = 0 if response is None else response.status_code
    if status in (401, 403, 407):
        return AccessError(
            f"{name} is refused ({status}): give a URL that this machine may read, such as a "
            "signed one that has not expired"
        )
    if status in (404, 410):
        return NotFoundError(f"{name} does not exist ({status}): give the URL of a zip")
    if 400 <= status < 500 and status not in (408, 425, 429):
        return ConfigError(f"{name} is not served ({status}): give the URL of a zip")
    return None
