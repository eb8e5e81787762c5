"""The folder in S3 that a job fills part by part and completes with its manifest.

A part holds the rows of some films and is written when these are done: a killed job starts again
at the first missing part. The number of films alone decides the parts, whatever shards or threads.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

from jobs.errors import BadDataError, ConflictError, ServiceUnavailableError
from jobs.runtime.parallel import chunked, ordered_map
from jobs.storage.csv_table import csv_bytes
from jobs.storage.manifest import (
    LARGEST_ROWS,
    FileEntry,
    FileRow,
    Manifest,
    describe,
    fingerprint,
    header,
    inflate,
    manifest_of,
    read_manifest,
    rows_of,
)
from jobs.storage.s3 import Store
from jobs.storage.verified_read import read_checked

log = logging.getLogger(__name__)

# Rows in a part, and how many parts a set of medium size has.
SMALLEST_PART, LARGEST_PART = 8, 256
PARTS = 64
PART_NUMBER = re.compile(r"/part-(\d{5,})\.jsonl\.gz$")

T = TypeVar("T")
R = TypeVar("R", bound=Mapping[str, object])
CheckRow = Callable[[Mapping[str, Any], str], object]


class JobSettings(Protocol):
    """What a work folder needs of a job's config; `jobs.settings.job_config.JobConfig` has it."""

    @property
    def out(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def force(self) -> bool: ...

    def identity(self) -> dict[str, Any]: ...


class WorkFolder:
    """One job's folder in S3.

    `inputs` are the manifests that the job reads, by name; `extra` is all else, beside the config's
    identity, that decides the bytes written. Together they give the folder's fingerprint.
    `check_row` takes a row that an earlier try wrote, with the name of its part, and raises
    BadDataError where it is not one of this job.
    """

    def __init__(
        self,
        store: Store,
        config: JobSettings,
        *,
        job: str,
        folder: str,
        recipe: str,
        inputs: Mapping[str, Manifest] | None = None,
        extra: Mapping[str, Any] | None = None,
        check_row: CheckRow | None = None,
    ) -> None:
        self.store = store
        self.job = job
        self.recipe = recipe
        self.check_row = check_row
        self.inputs = dict(inputs or {})
        self.config = config.identity() | dict(extra or {})
        self.fingerprint = fingerprint(
            job=job,
            recipe=recipe,
            inputs={name: manifest.content_hash for name, manifest in self.inputs.items()},
            config=self.config,
            salt=config.run_id if config.force else "",
        )
        self.root = f"{config.out.rstrip('/')}/{folder}/{self.fingerprint}"
        self.uri = f"{self.root}/manifest.json"
        self._files: dict[str, FileEntry] = {}
        self._records: dict[str, FileEntry] = {}
        self._started = time.time()
        # Parts of rows that the manifest has to list; known once rows are written.
        self._parts: int | None = None

    def finished(self) -> Manifest | None:
        """The manifest where the same work was done before, else None."""
        if not self.store.exists(self.uri):
            return None
        log.info("reused %s: the same work was done before", self.uri)
        return replace(read_manifest(self.store, self.uri, self.job), reused=True)

    def uri_of(self, key: str) -> str:
        return f"{self.root}/{key}"

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> FileRow:
        """Write the object of a film or mask and return its entry for the row."""
        self.store.write(self.uri_of(key), data, content_type=content_type)
        return describe(key, data).row()

    def add_file(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",
        *,
        has_timings: bool = False,
    ) -> None:
        """Write a file and list it in the header, outside the content hash where it has timings."""
        self.store.write(self.uri_of(key), data, content_type=content_type)
        (self._records if has_timings else self._files)[key] = describe(key, data)

    def add_table(
        self,
        key: str,
        columns: Sequence[str],
        rows: Iterable[Mapping[str, object]],
        *,
        has_timings: bool = False,
    ) -> None:
        """As `add_file`, a CSV file of rows."""
        self.add_file(key, csv_bytes(columns, rows), "text/csv", has_timings=has_timings)

    def write_rows(
        self,
        items: Iterable[T],
        total: int,
        work: Callable[[T], R],
        *,
        shard: tuple[int, int] = (0, 1),
        threads: int = 0,
        finish_part: Callable[[list[R]], list[R]] | None = None,
    ) -> Iterator[R]:
        """As `write_parts`; `work` makes the rows in `threads` threads (0: the store's)."""

        def flow(parts: Iterator[Sequence[T]]) -> Iterator[R]:
            each = itertools.chain.from_iterable(parts)
            return ordered_map(work, each, threads=threads or self.store.threads)

        return self.write_parts(items, total, flow, shard=shard, finish_part=finish_part)

    def write_parts(
        self,
        items: Iterable[T],
        total: int,
        flow: Callable[[Iterator[Sequence[T]]], Iterator[R]],
        *,
        shard: tuple[int, int] = (0, 1),
        finish_part: Callable[[list[R]], list[R]] | None = None,
    ) -> Iterator[R]:
        """Turn each of `total` items into a row, write the rows part by part, and yield them.

        Rows of this shard are yielded in order: a part that is in S3 already as it was read, a new
        one once it is written. `flow` takes the items of the missing parts, a part at a time, and
        yields a row for each item in order; it may take some parts ahead of its rows.
        `finish_part` takes the rows of a new part and returns those to write, as many. It is called
        once for each new part, after the rows of all earlier parts were yielded and consumed.
        """
        index, count = shard
        self._parts = number_of_parts(total)
        written = self._parts_written()
        # A written part's items are taken from `items` and dropped, so that the next ones follow.
        parts = (
            (number, [] if number in written else chunk)
            for number, chunk in enumerate(chunked(items, rows_per_part(total)))
            if number % count == index
        )
        # Two readers of the same parts: `flow` may be some parts ahead of the writing.
        mine, ahead = itertools.tee(parts)
        rows = flow(chunk for _, chunk in ahead if chunk)
        for number, chunk in mine:
            if number in written:
                part = cast("list[R]", self._read_part(number))
                self._check_length(number, len(part), total)
            else:
                part = list(itertools.islice(rows, len(chunk)))
                if finish_part:
                    part = finish_part(part)
                self._write_part(number, part)
            yield from part

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of all parts, by whatever shard, in order.

        Raises ServiceUnavailableError where S3 does not list every part of the set.
        """
        for number in self._all_parts():
            yield from self._read_part(number)

    def is_complete(self, total: int) -> bool:
        """Whether S3 holds every part of `total` rows, by whatever shard."""
        return len(self._parts_written()) == number_of_parts(total)

    def finish(
        self,
        *,
        counts: Mapping[str, Any],
        headline: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Write the manifest, once and last, and return it.

        Raises ConflictError where another writer wrote one with another content hash, and
        ServiceUnavailableError where S3 does not list every part: once written, a manifest is
        reused for ever.
        """
        self._all_parts()
        mine = self._header(counts, headline, details)
        try:
            self.store.write_json(self.uri, mine, if_absent=True)
        except ConflictError:
            other = read_manifest(self.store, self.uri, self.job)
            if other.content_hash != mine["content_hash"]:
                raise ConflictError(
                    f"{self.uri}: another writer finished the same work with other content "
                    f"({other.content_hash}, here {mine['content_hash']}): start this again"
                ) from None
        return read_manifest(self.store, self.uri, self.job)

    def unfinished(self, *, counts: Mapping[str, Any], headline: Mapping[str, Any]) -> Manifest:
        """The manifest so far, for a shard to return while others still work; it is not written."""
        return manifest_of(self.uri, self._header(counts, headline, None))

    def _header(
        self,
        counts: Mapping[str, Any],
        headline: Mapping[str, Any],
        details: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        return header(
            job=self.job,
            recipe=self.recipe,
            started=self._started,
            inputs=self.inputs,
            config=self.config,
            counts=counts,
            headline=headline,
            details=details,
            files=[self._files[key] for key in sorted(self._files)],
            records=[self._records[key] for key in sorted(self._records)],
            parts=self._part_entries(),
        )

    # Row parts

    def _part_uri(self, number: int) -> str:
        return self.uri_of(f"rows/part-{number:05d}.jsonl.gz")

    def _parts_written(self) -> set[int]:
        listed = self.store.list_objects(self.uri_of("rows/part-"))
        matches = (PART_NUMBER.search(item.uri) for item in listed)
        return {int(match[1]) for match in matches if match}

    def _all_parts(self) -> list[int]:
        """The numbers of all parts, each of which S3 has to list."""
        numbers = self._parts_written()
        if self._parts is not None and len(numbers) != self._parts:
            raise ServiceUnavailableError(
                f"{self.uri_of('rows/')}: S3 lists {len(numbers)} of {self._parts} parts of rows "
                "that were written: see that nobody deletes them, then start this again"
            )
        return sorted(numbers)

    def _read_part(self, number: int) -> list[dict[str, Any]]:
        uri = self._part_uri(number)
        rows = read_rows(self.store, uri)
        if self.check_row:
            for row in rows:
                self.check_row(row, uri)
        return rows

    def _check_length(self, number: int, rows: int, total: int) -> None:
        """Raise BadDataError where an earlier try's part has not as many rows as it has films."""
        size = rows_per_part(total)
        if rows != (expected := min(size, total - number * size)):
            raise BadDataError(
                f"{self._part_uri(number)} has {rows} rows of {expected} films: it was edited or "
                "damaged, delete it and run the job again"
            )

    def _write_part(self, number: int, rows: Sequence[Mapping[str, object]]) -> None:
        self.store.write(self._part_uri(number), pack_rows(rows), content_type="application/gzip")

    def _part_entries(self) -> list[FileEntry]:
        numbers = sorted(self._parts_written())
        uris = [self._part_uri(number) for number in numbers]
        # The sha256 is of the uncompressed rows: zlib's versions compress to different bytes.
        read = functools.partial(_read_part_as, inflate, self.store)
        texts = ordered_map(read, uris, threads=self.store.threads)
        keys = [uri.removeprefix(self.root + "/") for uri in uris]
        return [describe(key, text) for key, text in zip(keys, texts, strict=True)]


def number_of_parts(total: int) -> int:
    return -(-total // rows_per_part(total))


def rows_per_part(total: int) -> int:
    """About 64 parts for a small set, parts of 256 rows for a large one."""
    return min(LARGEST_PART, max(SMALLEST_PART, total // PARTS))


def pack_rows(rows: Iterable[Mapping[str, object]]) -> bytes:
    """The rows as gzipped JSON lines; the same rows give the same bytes."""
    # By default gzip's header holds the time.
    return gzip.compress(b"".join(map(_line, rows)), mtime=0)


def read_rows(store: Store, uri: str) -> list[dict[str, Any]]:
    """The rows of a part; BadDataError where it is damaged or has over LARGEST_ROWS bytes."""
    return _read_part_as(unpack_rows, store, uri)


def _read_part_as(unpack: Callable[[bytes, str], T], store: Store, uri: str) -> T:
    read = functools.partial(store.read, uri, largest=LARGEST_ROWS)
    return read_checked(uri, read, lambda packed: unpack(packed, uri))


def unpack_rows(packed: bytes, name: str = "a part of rows") -> list[dict[str, Any]]:
    """The rows that `pack_rows` packed; `name` is the part's in errors."""
    return list(rows_of(inflate(packed, name), name))


def _line(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, sort_keys=True, allow_nan=False, ensure_ascii=False).encode() + b"\n"
