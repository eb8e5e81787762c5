"""Films that are in S3 already: s3://BUCKET/PREFIX, or one archive s3://BUCKET/KEY.zip."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jobs.errors import NotFoundError
from jobs.sources.archive import ZipSource
from jobs.storage import Store


class BucketSource:
    """Every object below a prefix; its identity is that of their names, sizes and ETags."""

    def __init__(self, uri: str, store: Store) -> None:
        self._store = store
        self._prefix = uri.rstrip("/") + "/"
        objects = store.list_objects(self._prefix)
        self._found = {item.uri.removeprefix(self._prefix): item for item in objects if item.bytes}
        if not self._found:
            raise NotFoundError(f"there is nothing below {self._prefix}: check bucket and prefix")

    def identity(self) -> dict[str, str]:
        lines = (f"{name}\t{item.bytes}\t{item.etag}\n" for name, item in self._found.items())
        return {"listing": hashlib.sha256("".join(lines).encode()).hexdigest()}

    def names(self) -> list[str]:
        return sorted(self._found)

    def read(self, name: str) -> bytes:
        return self._store.read(self._prefix + name)

    def close(self) -> None:
        pass


def open_bucket(uri: str, store: Store, scratch: Path) -> BucketSource | ZipSource:
    """The source at `uri`; an archive is downloaded to `scratch` first."""
    if not uri.lower().endswith(".zip"):
        return BucketSource(uri, store)
    path = scratch / hashlib.sha256(uri.encode()).hexdigest()
    store.download(uri, path)
    return ZipSource(path)
