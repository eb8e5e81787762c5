"""Which films a model version has masked: rows in parts, appended by one writer at a time.

A film is identified by its name and ETag, so a replaced film is a new one. A part is written with a
conditional put: of two runs that append the same part, one is refused.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from jobs import typed_json
from jobs.errors import ConflictError
from jobs.runtime.parallel import ordered_map
from jobs.storage.s3 import Store
from jobs.storage.work_folder import pack_rows, read_rows

REMEDY = "it was edited or damaged, delete it and its films are masked again"
PART_NUMBER = re.compile(r"part-(\d+)\.jsonl\.gz$")


class LedgerRow(TypedDict):
    """What the ledger itself reads of a row."""

    origin: str
    etag: str
    status: str


class Ledger:
    """The parts below `folder`; holds a digest of 16 bytes per film in memory, not the rows."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._prefix = f"{folder}/part-"
        self._next_part = 0
        self._is_ok: dict[bytes, bool] = {}

    def read(self) -> Iterator[dict[str, Any]]:
        """Every row, the oldest first. Consume it before the first call of `ok` or `append`.

        Raises BadDataError for a part that is damaged.
        """
        uris = [item.uri for item in self._store.list_objects(self._prefix)]
        # After the last one, not by their number: a part that was deleted leaves a gap.
        numbers = [int(match[1]) for uri in uris if (match := PART_NUMBER.search(uri))]
        self._next_part = max(numbers, default=-1) + 1
        read = functools.partial(read_rows, self._store)
        parts = ordered_map(read, uris, threads=self._store.threads)
        for uri, rows in zip(uris, parts, strict=True):
            for row in rows:
                typed_json.check(row, LedgerRow, uri, remedy=REMEDY, closed=False)
            self._note(rows)
            yield from rows

    def ok(self, origin: str, etag: str) -> bool | None:
        """True where the film has a mask, False where it was unreadable, None where it is new."""
        return self._is_ok.get(_digest(origin, etag))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with the keys origin, etag and status as the next part.

        Raises ConflictError where another run has written since `read`.
        """
        uri = f"{self._prefix}{self._next_part:06d}.jsonl.gz"
        packed = pack_rows(rows)
        try:
            self._store.write(uri, packed, content_type="application/gzip", if_absent=True)
        except ConflictError:
            # A put whose response is lost is sent again, and is refused for its own object.
            if self._store.read(uri) != packed:
                raise
        self._next_part += 1
        self._note(rows)

    def _note(self, part: Sequence[Mapping[str, Any]]) -> None:
        for row in part:
            self._is_ok[_digest(row["origin"], row["etag"])] = row["status"] == "ok"


def _digest(origin: str, etag: str) -> bytes:
    return hashlib.blake2b(f"{origin}\n{etag}".encode(), digest_size=16).digest()
