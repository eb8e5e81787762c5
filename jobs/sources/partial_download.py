"""A zip that is downloaded whole to a local file, in one or more attempts, and then verified."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from jobs.errors import BadDataError
from jobs.runtime.progress import SECONDS_BETWEEN_LINES
from jobs.sources.archive import ZipSource
from jobs.sources.byte_ranges import FileRanges
from jobs.sources.file_kinds import FIRST_PART, PROGRAM, ZIP, kind_of
from jobs.sources.zip_member import DamagedError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

# Bytes of a response handed on at a time; a connection that breaks loses at most as many.
CHUNK = 2**16


class PartialDownload:
    """The file at `path` with the bytes received so far; the file need not exist yet.

    `name` is what messages call the file.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        self.path.unlink()

    def save(self, response: requests.Response) -> None:
        """Append the body of a partial response (206); a whole body replaces the file.

        Raises requests.HTTPError for an error status, so that no error page is saved, and
        BadDataError, with the kind of file, once the first bytes are those of no zip. A text may
        be the page of a proxy: whether that is retried is for `verify` to say.
        """
        response.raise_for_status()
        last_logged = monotonic()
        with self.path.open("ab" if response.status_code == 206 else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                if not file.tell():
                    self._check_kind(chunk)
                file.write(chunk)
                if monotonic() - last_logged >= SECONDS_BETWEEN_LINES:
                    last_logged = monotonic()
                    log.info("downloaded %d MB", file.tell() // 10**6)

    def _check_kind(self, head: bytes) -> None:
        kind = kind_of(head)
        if kind and kind not in (ZIP, FIRST_PART, PROGRAM) and kind.sort != "text":
            raise BadDataError(f"{self.name} is not a zip but {kind.what}: {kind.remedy}")

    def verify(self, size: int, checksums: str) -> None:
        """Raise DamagedError, and discard the file, unless it is the archive that was announced.

        `size` is in bytes, 0 if unknown. `checksums` is the x-goog-hash header, such as
        "crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ=="; without an md5 every member's CRC-32 is
        tested. Raises BadDataError if all announced bytes arrived and are not a usable zip.
        """
        announced_md5 = re.search(r"md5=([A-Za-z0-9+/=]+)", checksums)
        try:
            if size and self.size != size:
                raise DamagedError(f"{self.size} bytes received, {size} announced")
            if not announced_md5:
                self._test_members(is_whole=size > 0)
            elif self._md5() != announced_md5[1]:
                raise DamagedError("the md5 differs from the announced one")
        except DamagedError:
            self.discard()
            raise

    def _md5(self) -> str:
        with self.path.open("rb") as file:
            return base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()

    def _test_members(self, *, is_whole: bool) -> None:
        try:
            archive = ZipSource(FileRanges(self.path, self.name))
        except BadDataError as error:
            # If the size is unknown, the file may be truncated: another attempt may help.
            if is_whole:
                raise
            raise DamagedError(str(error)) from None
        try:
            archive.test()
        finally:
            archive.close()
