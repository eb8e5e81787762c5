"""A large file somewhere, of which any thread can read any part: what a zip is read through."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from jobs.errors import AccessError, NotFoundError
from jobs.storage.s3 import Store

CHUNK = 2**20  # bytes handed on at a time


class Extents(Protocol):
    """`name` stands in messages; `size` is in bytes, and does not change while it is read."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` (exclusive) in chunks; fewer only where the file ends early.

        Raises ConflictError where the file was changed, ServiceUnavailableError where it cannot be
        had after retries.
        """

    def close(self) -> None: ...


class FileExtents:
    """A file on this machine; `name` is what messages call it, its own name unless given."""

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
        while start < stop and (chunk := os.pread(self._handle, min(CHUNK, stop - start), start)):
            start += len(chunk)
            yield chunk

    def close(self) -> None:
        os.close(self._handle)


class ObjectExtents:
    """An object in S3, read by ranges that all ask for the ETag it had at first."""

    def __init__(self, uri: str, store: Store) -> None:
        self.name = uri
        self._store = store
        self._found = store.stat(uri)
        self.size = self._found.bytes

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        return self._store.stream(self._found, start, stop)

    def close(self) -> None:
        pass


def join(pieces: Iterator[bytes]) -> bytes:
    """The pieces as one, which are never all in memory beside it."""
    whole = io.BytesIO()
    for piece in pieces:
        whole.write(piece)
    return whole.getvalue()
