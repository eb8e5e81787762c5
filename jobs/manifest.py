"""What a job wrote: a folder in S3 named by a fingerprint, whose last object is its manifest.

    <out>/<folder>/<fingerprint>/rows/part-00000.jsonl.gz   a row a film, written as the work goes
    <out>/<folder>/<fingerprint>/...                        the job's files
    <out>/<folder>/<fingerprint>/manifest.json              the header, last: the folder counts

A row part is written when its films are done, so that a job that was killed finds its parts and
does only the rest. Parts depend on the number of films alone, not on shards or threads.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from jobs.config import JobConfig
from jobs.errors import BadDataError, ConfigError, ConflictError
from jobs.parallel import ordered_map
from jobs.storage import Store

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SMALLEST_PART, LARGEST_PART, PARTS = 8, 256, 64

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True)
class FileEntry:
    """One object of a manifest; `key` is relative to the manifest's folder, `sha256` is hex."""

    key: str
    bytes: int
    sha256: str


def describe(key: str, data: bytes) -> FileEntry:
    return FileEntry(key, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """The header: what was done, from what, with which settings, and what came of it.

    `content_hash` covers the keys, bytes and sha256 of the row parts and of the files in `files`
    (the rows name every film's and mask's own sha256); `records` holds files that carry timings and
    so stay outside. `headline` has the few figures to print.
    """

    uri: str
    job: str
    recipe: str
    inputs: dict[str, dict[str, str]]
    config: dict[str, Any]
    counts: dict[str, int]
    headline: dict[str, Any]
    details: dict[str, Any]
    files: list[FileEntry]
    records: list[FileEntry]
    parts: list[FileEntry]
    content_hash: str
    created_by: dict[str, Any]
    schema_version: int = SCHEMA_VERSION
    reused: bool = field(default=False, compare=False)

    @property
    def root(self) -> str:
        return self.uri.removesuffix("/manifest.json")

    @property
    def fingerprint(self) -> str:
        return self.root.rpartition("/")[2]

    def uri_of(self, key: str) -> str:
        return f"{self.root}/{key}"

    def result(self, seconds: float) -> dict[str, Any]:
        """What a task returns: the manifest's URI and the headline figures, plain JSON."""
        return {
            "job": self.job,
            "manifest": self.uri,
            "content_hash": self.content_hash,
            "reused": self.reused,
            "seconds": round(seconds, 2),
            "headline": self.headline,
        }

    def rows(self, store: Store) -> Iterator[Row]:
        """Every row in order, one part in memory at a time."""
        for part in self.parts:
            yield from _unpack(store.read(self.uri_of(part.key)), part, self.uri)

    def read_file(self, store: Store, key: str) -> bytes:
        """One of the manifest's files, checked against its sha256."""
        for entry in (*self.files, *self.records):
            if entry.key == key:
                return store.read(self.uri_of(key), sha256=entry.sha256)
        raise BadDataError(f"{self.uri} lists no {key}: it was not written by this version")


def read_manifest(store: Store, uri: str, job: str = "") -> Manifest:
    """Load a header; BadDataError where it is not one, or not of `job`."""
    header = store.read_json(uri)
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION:
        raise BadDataError(
            f"{uri} is not a manifest of schema version {SCHEMA_VERSION}: run its job again"
        )
    try:
        manifest = _manifest_of(uri, header)
    except (KeyError, TypeError) as error:
        raise BadDataError(f"{uri} is a damaged manifest ({error}): run its job again") from error
    if job and manifest.job != job:
        raise ConfigError(f"{uri} is the manifest of {manifest.job}: give that of {job}")
    return manifest


def _manifest_of(uri: str, header: Mapping[str, Any]) -> Manifest:
    lists = {
        name: [FileEntry(**entry) for entry in header[name]]
        for name in ("files", "records", "parts")
    }
    return Manifest(uri=uri, **{**header, **lists})


class Stage:
    """One job's folder in S3, found done or filled.

    `inputs` names the manifests the job reads; `extra` is anything else its bytes depend on.
    """

    def __init__(
        self,
        store: Store,
        config: JobConfig,
        *,
        job: str,
        folder: str,
        recipe: str,
        inputs: Mapping[str, Manifest] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.store = store
        self.job = job
        self.recipe = recipe
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

    def finished(self) -> Manifest | None:
        """The manifest of the same work done before, or None."""
        if not self.store.exists(self.uri):
            return None
        log.info("reused %s: the same work was done before", self.uri)
        return replace(read_manifest(self.store, self.uri, self.job), reused=True)

    def uri_of(self, key: str) -> str:
        return f"{self.root}/{key}"

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> Row:
        """Write a film's or mask's object and return its entry for the row."""
        self.store.write(self.uri_of(key), data, content_type=content_type)
        return asdict(describe(key, data))

    def add_file(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",
        *,
        has_timings: bool = False,
    ) -> None:
        """Write a file of the job as a whole and list it in the header."""
        self.store.write(self.uri_of(key), data, content_type=content_type)
        (self._records if has_timings else self._files)[key] = describe(key, data)

    def write_rows(
        self,
        items: Iterable[T],
        total: int,
        work: Callable[[T], Row],
        *,
        shard: tuple[int, int] = (0, 1),
        threads: int = 0,
        admit: Callable[[Row], Row] = lambda row: row,
    ) -> Iterator[Row]:
        """Turn each of `total` items into a row by many threads, a part of rows at a time.

        Yields every row of this shard in order: those that an earlier try left as they are, the
        others once their part is safe. `admit` sees each new row in order, after all before it,
        and may replace it.
        """
        index, count = shard
        done = self._parts_written()
        chunks = enumerate(_chunked(items, rows_per_part(total)))
        mine = ((number, chunk) for number, chunk in chunks if number % count == index)
        pending = (
            (number, item)
            for number, chunk in mine
            for item in ([None] if number in done else chunk)
        )

        def one(numbered: tuple[int, Any]) -> tuple[int, Row]:
            number, item = numbered
            return number, {} if item is None else work(item)

        worked = ordered_map(one, pending, threads=threads or self.store.threads)
        for number, group in itertools.groupby(worked, key=lambda pair: pair[0]):
            if number in done:
                next(group)
                yield from self._read_part(number)
            else:
                yield from self._write_part(number, [admit(row) for _, row in group])

    def rows(self) -> Iterator[Row]:
        """Every row written so far, whoever wrote it."""
        for number in sorted(self._parts_written()):
            yield from self._read_part(number)

    def is_complete(self, total: int) -> bool:
        """Whether every part of `total` rows is there, whoever wrote it."""
        return len(self._parts_written()) == -(-total // rows_per_part(total))

    def finish(self, **about: Mapping[str, Any]) -> Manifest:
        """Write the manifest, last and once; another writer's of the same content is accepted.

        `about` holds counts, headline and, where there are any, details.
        """
        header = self._header(**about)
        try:
            self.store.write_json(self.uri, header, if_absent=True)
        except ConflictError:
            found = read_manifest(self.store, self.uri, self.job)
            if found.content_hash != header["content_hash"]:
                raise ConflictError(
                    f"{self.uri}: another writer finished the same work with other content "
                    f"({found.content_hash}, here {header['content_hash']}): start this again"
                ) from None
        return read_manifest(self.store, self.uri, self.job)

    def unfinished(self, **about: Mapping[str, Any]) -> Manifest:
        """What one shard returns while others still work: nothing of it is in S3."""
        return _manifest_of(self.uri, self._header(**about))

    def _header(
        self,
        *,
        counts: Mapping[str, Any],
        headline: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        parts = self._part_entries()
        files = sorted(self._files.values(), key=lambda entry: entry.key)
        return {
            "schema_version": SCHEMA_VERSION,
            "job": self.job,
            "recipe": self.recipe,
            "created_by": created_by(self._started),
            "inputs": {
                name: {"uri": manifest.uri, "content_hash": manifest.content_hash}
                for name, manifest in self.inputs.items()
            },
            "config": self.config,
            "counts": dict(counts),
            "headline": dict(headline),
            "details": dict(details or {}),
            "files": [asdict(entry) for entry in files],
            "records": [asdict(self._records[key]) for key in sorted(self._records)],
            "parts": [asdict(entry) for entry in parts],
            "content_hash": content_hash([*parts, *files]),
        }

    # Row parts

    def _part_uri(self, number: int) -> str:
        return self.uri_of(f"rows/part-{number:05d}.jsonl.gz")

    def _parts_written(self) -> set[int]:
        listed = self.store.list_objects(self.uri_of("rows/part-"))
        return {int(item.uri.rpartition("part-")[2].partition(".")[0]) for item in listed}

    def _read_part(self, number: int) -> list[Row]:
        lines = gzip.decompress(self.store.read(self._part_uri(number))).splitlines()
        return [json.loads(line) for line in lines]

    def _write_part(self, number: int, rows: list[Row]) -> list[Row]:
        lines = b"".join(_line(row) for row in rows)
        packed = gzip.compress(lines, mtime=0)
        self.store.write(self._part_uri(number), packed, content_type="application/gzip")
        return rows

    def _part_entries(self) -> list[FileEntry]:
        numbers = sorted(self._parts_written())
        uris = [self._part_uri(number) for number in numbers]
        texts = map(gzip.decompress, self.store.read_many(uris))
        keys = [uri.removeprefix(self.root + "/") for uri in uris]
        return [describe(key, text) for key, text in zip(keys, texts, strict=True)]


def fingerprint(
    *, job: str, recipe: str, inputs: Mapping[str, str], config: Mapping[str, Any], salt: str = ""
) -> str:
    """16 hex digits that name the work: the inputs' content, the settings and the recipe version.

    Neither dates, prefixes nor the code's revision enter, so the same work has the same name.
    """
    about = {"job": job, "recipe": recipe, "inputs": inputs, "config": config, "salt": salt}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def content_hash(entries: Iterable[FileEntry]) -> str:
    """sha256 (hex) over the key, bytes and sha256 of every entry, in key order."""
    ordered = sorted(entries, key=lambda entry: entry.key)
    lines = (f"{entry.key}\t{entry.bytes}\t{entry.sha256}\n" for entry in ordered)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def rows_per_part(total: int) -> int:
    """About 64 parts for a small set, parts of 256 rows for a large one."""
    return min(LARGEST_PART, max(SMALLEST_PART, total // PARTS))


def created_by(started: float) -> dict[str, Any]:
    """Who made it and how long it took: said, but no part of any hash."""
    return {
        "revision": os.environ.get("LUNG_REVISION", "unknown"),
        "image": os.environ.get("LUNG_IMAGE", ""),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
    }


def _chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while chunk := list(itertools.islice(stream, size)):
        yield chunk


def _line(row: Row) -> bytes:
    return json.dumps(row, sort_keys=True, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def _unpack(packed: bytes, part: FileEntry, uri: str) -> Iterator[Row]:
    text = gzip.decompress(packed)
    if hashlib.sha256(text).hexdigest() != part.sha256:
        raise BadDataError(f"{uri}: the rows in {part.key} were changed: run its job with --force")
    return map(json.loads, text.splitlines())
