"""Downloads that survive a bad network: retried, resumed, verified.

URLs may carry a signature, so nothing here logs the query of a URL.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from jobs.errors import BadDataError, JobError, ServiceUnavailableError
from jobs.runtime.progress import SECONDS_BETWEEN_LINES
from jobs.sources.archive import LocalZip
from jobs.sources.zip_member import DamagedError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

CHUNK = 2**16  # bytes; a cut loses the chunk under way
FRUITLESS_ATTEMPTS = 6  # in a row without a new byte
LONGEST_PAUSE = 60.0  # seconds, of our own
LONGEST_RETRY_AFTER = 600.0  # seconds a server may ask for before the job is left to its scheduler

T = TypeVar("T")


class Retries:
    """Repeats what fails, with growing pauses, and counts; `name` stands in the messages.

    `refusal` turns an error into the one that ends the job at once, or into None.
    """

    def __init__(self, name: str, refusal: Callable[[Exception], JobError | None]) -> None:
        self.name = name
        self.count = 0
        self._refusal = refusal

    def run(self, attempt: Callable[[], T], part: Path | None = None) -> T:
        """The attempt's result; attempts that make `part` longer are not held against it.

        Raises what `pause` raises.
        """
        import requests

        fruitless, longest = 0, size_of(part)
        while True:
            try:
                return attempt()
            except (requests.RequestException, DamagedError) as error:
                fruitless = 1 if size_of(part) > longest else fruitless + 1
                longest = max(longest, size_of(part))
                self.pause(error, fruitless)

    def pause(self, error: Exception, fruitless: int) -> None:
        """Wait before the next attempt, after `fruitless` ones in a row.

        Raises the refusal, or ServiceUnavailableError after `FRUITLESS_ATTEMPTS` or where the
        server asks for a longer pause than `LONGEST_RETRY_AFTER`.
        """
        if refusal := self._refusal(error):
            raise refusal from None
        asked = _retry_after(error)
        if fruitless >= FRUITLESS_ATTEMPTS or asked > LONGEST_RETRY_AFTER:
            later = f" and asks to wait {asked:.0f} s" if asked else ""
            raise ServiceUnavailableError(
                f"{self.name} is not delivered after {self.count} retries{later} "
                f"({_told(error)}): run the job again later"
            ) from None
        self.count += 1
        wait = max(asked, min(LONGEST_PAUSE, 2.0**fruitless) * random.uniform(0.5, 1))
        log.warning("%s: %s; retry %d in %.0f s", self.name, _told(error), self.count, wait)
        sleep(wait)


def save(response: requests.Response, part: Path) -> None:
    """Append a partial body to `part`, write a whole one from its start.

    Raises requests.HTTPError for an error's page, which so never gets into the file.
    """
    response.raise_for_status()
    told = monotonic()
    with part.open("ab" if response.status_code == 206 else "wb") as file:
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            if monotonic() - told >= SECONDS_BETWEEN_LINES:
                told = monotonic()
                log.info("downloaded %d MB", file.tell() // 10**6)


def verify(part: Path, size: int, checksums: str) -> None:
    """Raise DamagedError and drop the part unless it is the archive that was announced.

    `size` in bytes, 0 where unknown; `checksums` is the x-goog-hash header, such as
    "crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ==". Without an md5 every member's CRC is tested.
    Raises BadDataError where all that was announced came, and is no zip that can be used.
    """
    announced = re.search(r"md5=([A-Za-z0-9+/=]+)", checksums)
    try:
        if size and size_of(part) != size:
            raise DamagedError(f"{size_of(part)} bytes came, {size} were announced")
        if not announced:
            _test_members(part, is_whole=size > 0)
        elif _md5(part) != announced[1]:
            raise DamagedError("the md5 differs from the one announced")
    except DamagedError:
        part.unlink()
        raise


def size_of(part: Path | None) -> int:
    """Bytes, 0 for a file that is not there."""
    return part.stat().st_size if part and part.exists() else 0


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()


def _test_members(path: Path, *, is_whole: bool) -> None:
    try:
        archive = LocalZip(path)
    except BadDataError as error:
        if is_whole:
            raise
        raise DamagedError(str(error)) from None
    try:
        archive.test()
    finally:
        archive.close()


def _retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait, 0 where it asks nothing."""
    response = getattr(error, "response", None)
    value = "" if response is None else response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _told(error: Exception) -> str:
    """The error in one short line, without the query of a URL and without a password in it."""
    text = re.sub(r"\?[^\s'\")]*", "?...", " ".join(str(error).split()))
    text = re.sub(r"//[^/\s]*@", "//", text)
    return f"{type(error).__name__}: {text[:200]}"
