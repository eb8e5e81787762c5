"""Films that are in S3 already: s3://BUCKET/PREFIX, or one archive s3://BUCKET/KEY.zip."""

from __future__ import annotations

import hashlib

from jobs.errors import NotFoundError
from jobs.sources.archive import ZipSource
from jobs.sources.byte_ranges import ObjectExtents, join
from jobs.sources.source import check_size
from jobs.storage.s3 import Store


class BucketSource:
    """Every object below a prefix, `found` by its name.

    Its identity is that of their names, sizes and ETags.
    """

    def __init__(self, uri: str, store: Store) -> None:
        self._store = store
        self._prefix = uri.rstrip("/") + "/"
        self.found = {
            item.uri.removeprefix(self._prefix): item
            for item in store.list_objects(self._prefix)
            if not item.uri.endswith("/")  # what a console makes to show an empty folder
        }
        if not self.found:
            raise NotFoundError(f"there is nothing below {self._prefix}: check bucket and prefix")

    def identity(self) -> dict[str, str]:
        lines = (f"{name}\t{item.bytes}\t{item.etag}\n" for name, item in self.found.items())
        return {"listing": hashlib.sha256("".join(lines).encode()).hexdigest()}

    def names(self) -> list[str]:
        return sorted(self.found)

    def size(self, name: str) -> int:
        found = self.found[name]
        return check_size(found.uri, found.bytes)

    def read(self, name: str) -> bytes:
        """The object that was listed; ConflictError where another has taken its place."""
        self.size(name)
        found = self.found[name]
        return join(self._store.stream(found, 0, found.bytes))

    def close(self) -> None:
        pass


def open_bucket(uri: str, store: Store) -> BucketSource | ZipSource:
    """The source at `uri`; an archive is read where it lies."""
    if uri.lower().endswith(".zip"):
        return ZipSource(ObjectExtents(uri, store))
    return BucketSource(uri, store)
