"""A zip behind a URL: read by ranges where its server has them, else downloaded whole to scratch.

Every range asks for the version (ETag, or date, and size) that the first answer had, so that an
archive which is replaced while it is read ends the job, to be started again, and is never mixed.
Of a whole download the md5 is tested where the server tells it, else every member's CRC-32.
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
from jobs.sources.byte_ranges import FileExtents
from jobs.sources.retries import CHUNK, Retries, save, size_of, verify
from jobs.sources.zip_member import DamagedError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

TIMEOUT = (10, 60)  # seconds to connect, and between two reads
CONNECTIONS = 32  # kept open; more threads than that open more
OF_ANOTHER_RANGE = "the answer is of another range than was asked for"


@dataclass(frozen=True)
class Version:
    """The state of a file, by what a server says of it; "" or 0 where it says nothing."""

    size: int
    etag: str
    modified: str

    @classmethod
    def of(cls, answer: requests.Response) -> Version:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        size = total if answer.status_code == 206 else answer.headers.get("Content-Length", "")
        etag, modified = (answer.headers.get(name, "") for name in ("ETag", "Last-Modified"))
        return cls(int(size) if size.isdecimal() else 0, etag, modified)

    def differs(self, other: Version) -> bool:
        """Whether both say something of which they say different things."""
        pairs = zip(
            (self.size, self.etag, self.modified),
            (other.size, other.etag, other.modified),
            strict=True,
        )
        return any(mine and theirs and mine != theirs for mine, theirs in pairs)

    def condition(self) -> dict[str, str]:
        """Headers that make a server send another version whole; a weak ETag is no condition."""
        exact = self.modified if self.etag.startswith("W/") else self.etag or self.modified
        return {"If-Range": exact} if exact else {}


class WebFile:
    """Extents over HTTP; `link` gives the URL to ask, anew where storage refuses the old one."""

    def __init__(self, retries: Retries, link: Callable[[], str]) -> None:
        import requests

        self.name = retries.name
        self._retries = retries
        self._link = link
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
        """Ask for the first byte: the answer tells size, version and whether ranges are served."""
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

    def download(self, part: Path) -> None:
        """Fetch the whole file, which is verified; attempts go on where one was cut if they can."""
        self._retries.run(lambda: self._fetch(part), part)

    def close(self) -> None:
        self._session.close()

    def _probe(self) -> bool:
        with self._get({"Range": "bytes=0-0"}) as answer:
            if answer.status_code != 416:  # of an empty file
                answer.raise_for_status()
            self._version = Version.of(answer)
            return answer.status_code == 206 and self._version.size > 0

    def _range(self, start: int, stop: int) -> Iterator[bytes]:
        """One attempt; raises DamagedError for an answer that is not of this range."""
        headers = {"Range": f"bytes={start}-{stop - 1}"} | self._version.condition()
        with self._get(headers) as answer:
            if answer.status_code in (412, 416) or answer.ok:
                self._check_version(answer)
            answer.raise_for_status()
            span = re.match(r"bytes (\d+)-(\d+)/", answer.headers.get("Content-Range", ""))
            if answer.status_code != 206 or not span or int(span[1]) != start:
                raise DamagedError(OF_ANOTHER_RANGE)
            for chunk in answer.iter_content(CHUNK):
                start += len(chunk)
                if start > stop:
                    raise DamagedError(OF_ANOTHER_RANGE)
                yield chunk
        if start <= int(span[2]):
            raise DamagedError("the body was cut")

    def _fetch(self, part: Path) -> None:
        have = size_of(part)
        resume = {"Range": f"bytes={have}-"} | self._version.condition() if have else {}
        with self._get(resume) as answer:
            if have and (answer.status_code == 416 or self._version.differs(Version.of(answer))):
                part.unlink()
                raise DamagedError("the rest of another file was answered")
            save(answer, part)
            self._version = Version.of(answer)
        verify(part, self._version.size, answer.headers.get("x-goog-hash", ""))

    def _get(self, headers: dict[str, str]) -> requests.Response:
        with self._lock:
            self._url = url = self._url or self._link()
        # Bytes as they lie there: a range of a body that is compressed on the way has no meaning.
        headers = {"Accept-Encoding": "identity"} | headers
        answer = self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        if 400 <= answer.status_code < 500:
            with self._lock:
                self._url = "" if self._url == url else self._url
        return answer

    def _check_version(self, answer: requests.Response) -> None:
        if answer.status_code in (412, 416) or self._version.differs(Version.of(answer)):
            raise ConflictError(f"{self.name} was changed while it was read: start this again")


def open_file(file: WebFile, scratch: Path) -> ZipSource:
    """The zip at `file`: by ranges, or downloaded to the folder `scratch` where there are none."""
    try:
        if file.has_ranges():
            return ZipSource(file)
        log.info("%s: its server has no ranges, so it is downloaded whole first", file.name)
        part = Path(tempfile.mkdtemp(dir=scratch)) / "archive.part"
        file.download(part)
    except BaseException:
        file.close()
        raise
    file.close()
    return ZipSource(FileExtents(part, file.name))


def open_url(uri: str, scratch: Path) -> ZipSource:
    """The zip at https://HOST/PATH (http:// too); a password in it, or a query, is never told."""
    name = _name_of(uri)
    retries = Retries(name, lambda error: _refusal(name, error))
    return open_file(WebFile(retries, lambda: uri), scratch)


def _name_of(uri: str) -> str:
    """The URL without its secrets; ConfigError where it is none that can be asked for."""
    import requests

    try:
        parts = urlsplit(uri)
        asked = requests.Request("GET", uri).prepare().url
        str(urlsplit(asked).hostname).encode("idna")  # tests what requests leaves to the socket
    except ValueError:  # requests.InvalidURL is one too
        told = re.split("[?#]", re.sub("//.*@", "//", uri))[0]
        raise ConfigError(
            f"source {told!r} has the wrong form: give https://HOST/PATH.zip, a port as a number "
            "and, in a password, / as %2F, ? as %3F, # as %23 and @ as %40"
        ) from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _refusal(name: str, error: Exception) -> JobError | None:
    """The error that ends the job at once, or None where asking again can help."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return AccessError(
            f"{name}: its certificate is not trusted: give the file of your authority's "
            "certificates as REQUESTS_CA_BUNDLE"
        )
    response = getattr(error, "response", None)
    status = 0 if response is None else response.status_code
    if status in (401, 403, 407):
        return AccessError(
            f"{name} is refused ({status}): give a URL that may be read from here, such as a "
            "signed one that has not expired"
        )
    if status in (404, 410):
        return NotFoundError(f"{name} does not exist ({status}): give the URL of a zip")
    if 400 <= status < 500 and status not in (408, 425, 429):
        return ConfigError(f"{name} is not served ({status}): give the URL of a zip")
    return None
