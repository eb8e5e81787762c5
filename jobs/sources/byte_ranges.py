"""A large file of which any thread can read any byte range: local, or an object in S3."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from jobs.errors import AccessError, NotFoundError
from jobs.storage.s3 import Store

# Bytes of a local file read at a time, and the most that a member inflates to at a time.
CHUNK = 2**20


class ByteRanges(Protocol):
    """A file read by byte ranges; its content and `size` (bytes) must not change meanwhile."""

    @property
    def name(self) -> str:
        """How messages call the file."""

    @property
    def size(self) -> int: ...

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` (exclusive) in chunks; fewer only if the file ends before.

        Raises ConflictError if the file has changed, ServiceUnavailableError if it cannot be read
        after retries.
        """

    def close(self) -> None: ...


class FileRanges:
    """A file on this machine; `name` defaults to the file's name."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.name = name or path.name
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise NotFoundError(f"archive {path} does not exist: give a zip's path") from None
        except PermissionError:
            raise AccessError(f"archive {path} may not be read: grant read access to it") from None
        self.size = os.fstat(self._handle).st_size

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        # pread keeps no position, so threads can share the handle.
        while start < stop and (chunk := os.pread(self._handle, min(CHUNK, stop - start), start)):
            start += len(chunk)
            yield chunk

    def close(self) -> None:
        os.close(self._handle)


class ObjectRanges:
    """An object in S3; every range is requested with the ETag of the first request."""

    def __init__(self, uri: str, store: Store) -> None:
        self.name = uri
        self._store = store
        self._object = store.stat(uri)
        self.size = self._object.bytes

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        return self._store.stream(self._object, start, stop)

    def close(self) -> None:
        pass


def join_chunks(chunks: Iterator[bytes]) -> bytes:
    """The chunks as one `bytes`; memory holds one chunk and the result, not a list of chunks."""
    whole = io.BytesIO()
    for chunk in chunks:
        whole.write(chunk)
    return whole.getvalue()
