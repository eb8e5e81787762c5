"""Which films a model version has masked: rows in parts, appended by one writer at a time.

A film is its name and its ETag, so one that was replaced is a new one. A part's number is taken
with a conditional put: of two runs that mask the same films, only one writes them down.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from jobs.storage.manifest import Row
from jobs.storage.s3 import Store
from jobs.storage.work_folder import pack_rows, unpack_rows


class Ledger:
    """The parts below `folder`. What `read` has seen is kept as 16 bytes a film, not as rows."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._prefix = f"{folder}/part-"
        self._parts = 0
        self._is_ok: dict[bytes, bool] = {}

    def read(self) -> Iterator[Row]:
        """Every row, the oldest first; `ok` and `append` need it to have been consumed."""
        uris = [item.uri for item in self._store.list_objects(self._prefix)]
        for packed in self._store.read_many(uris):
            rows = unpack_rows(packed)
            self._note(rows)
            yield from rows

    def ok(self, origin: str, etag: str) -> bool | None:
        """Whether this film has a mask; False where it cannot be read, None where it is new."""
        return self._is_ok.get(_digest(origin, etag))

    def append(self, rows: Sequence[Row]) -> None:
        """Write the rows, which have origin, etag and status, as one part.

        Raises ConflictError where another run has written since `read`.
        """
        uri = f"{self._prefix}{self._parts:06d}.jsonl.gz"
        packed = pack_rows(rows)
        self._store.write(uri, packed, content_type="application/gzip", if_absent=True)
        self._note(rows)

    def _note(self, part: Sequence[Row]) -> None:
        self._parts += 1
        for row in part:
            self._is_ok[_digest(row["origin"], row["etag"])] = row["status"] == "ok"


def _digest(origin: str, etag: str) -> bytes:
    return hashlib.blake2b(f"{origin}\n{etag}".encode(), digest_size=16).digest()
