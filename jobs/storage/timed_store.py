"""A Store whose seconds and bytes are in the job's profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.runtime.profile import moved, timed
from jobs.storage.s3 import Store


class TimedStore(Store):
    """Counts its seconds and bytes to the stages read and write."""

    def read_tagged(
        self, uri: str, *, sha256: str = "", etag: str = "", largest: int = 0
    ) -> tuple[bytes, str]:
        with timed("read"):
            data, etag = super().read_tagged(uri, sha256=sha256, etag=etag, largest=largest)
        moved("read", len(data))
        return data, etag

    def write(self, uri: str, data: bytes, **options: Any) -> str:
        with timed("write"):
            etag = super().write(uri, data, **options)
        moved("write", len(data))
        return etag

    def upload(self, path: Path, uri: str) -> None:
        with timed("write"):
            super().upload(path, uri)
