"""What a job wrote: a folder in S3 named by a fingerprint, whose last object is its manifest.

<out>/<folder>/<fingerprint>/rows/part-00000.jsonl.gz   a row a film, written as the work goes
<out>/<folder>/<fingerprint>/...                        the job's files
<out>/<folder>/<fingerprint>/manifest.json              the header, last: the folder counts
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from jobs.errors import BadDataError, ConfigError
from jobs.runtime import profile
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1

Row = dict[str, Any]


class FileRow(TypedDict):
    """A `FileEntry` as rows and headers hold it."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FileEntry:
    """One object of a manifest; `key` is relative to the manifest's folder, `sha256` is hex."""

    key: str
    bytes: int
    sha256: str

    def row(self) -> FileRow:
        return FileRow(key=self.key, bytes=self.bytes, sha256=self.sha256)


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
        return self.uri.rpartition("/")[0]

    @property
    def fingerprint(self) -> str:
        return self.root.rpartition("/")[2]

    def uri_of(self, key: str) -> str:
        return f"{self.root}/{key}"

    def result(self, seconds: float) -> dict[str, Any]:
        """What a task returns: URIs of the manifest and its files, headline figures; plain JSON."""
        return {
            "job": self.job,
            "manifest": self.uri,
            "content_hash": self.content_hash,
            "reused": self.reused,
            "seconds": round(seconds, 2),
            "headline": self.headline,
            "files": {entry.key: self.uri_of(entry.key) for entry in (*self.files, *self.records)},
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
    value = store.read_json(uri)
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise BadDataError(
            f"{uri} is not a manifest of schema version {SCHEMA_VERSION}: run its job again"
        )
    try:
        manifest = manifest_of(uri, value)
    except (KeyError, TypeError) as error:
        raise BadDataError(f"{uri} is a damaged manifest ({error}): run its job again") from error
    if job and manifest.job != job:
        raise ConfigError(f"{uri} is the manifest of {manifest.job}: give that of {job}")
    return manifest


def manifest_of(uri: str, value: Mapping[str, Any]) -> Manifest:
    """The manifest whose header's JSON is `value`; KeyError or TypeError where it is not one."""
    entries = {
        name: [FileEntry(**entry) for entry in value[name]]
        for name in ("files", "records", "parts")
    }
    return Manifest(uri=uri, **{**value, **entries})


def fingerprint(
    *, job: str, recipe: str, inputs: Mapping[str, str], config: Mapping[str, Any], salt: str = ""
) -> str:
    """16 hex digits that name the work: the inputs' content, the settings and the recipe version.

    Neither dates, prefixes nor the code's revision enter, so the same work has the same name.
    """
    about = {"job": job, "recipe": recipe, "inputs": inputs, "config": config, "salt": salt}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def hash_entries(entries: Iterable[FileEntry]) -> str:
    """sha256 (hex) over the key, bytes and sha256 of every entry, in key order."""
    ordered = sorted(entries, key=lambda entry: entry.key)
    lines = (f"{entry.key}\t{entry.bytes}\t{entry.sha256}\n" for entry in ordered)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def header(
    *,
    job: str,
    recipe: str,
    started: float,
    inputs: Mapping[str, Manifest],
    config: Mapping[str, Any],
    counts: Mapping[str, Any],
    headline: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
    files: Sequence[FileEntry] = (),
    records: Sequence[FileEntry] = (),
    parts: Sequence[FileEntry] = (),
    content_hash: str = "",
) -> dict[str, Any]:
    """The JSON of a manifest's header, as `manifest_of` reads it.

    `started` is the job's start in seconds since the epoch, `config` its settings that decide the
    bytes written. `content_hash` is that of `parts` and `files` unless it is given.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "job": job,
        "recipe": recipe,
        "created_by": created_by(started),
        "inputs": {
            name: {"uri": manifest.uri, "content_hash": manifest.content_hash}
            for name, manifest in inputs.items()
        },
        "config": dict(config),
        "counts": dict(counts),
        "headline": dict(headline),
        "details": dict(details or {}),
        "files": [asdict(entry) for entry in files],
        "records": [asdict(entry) for entry in records],
        "parts": [asdict(entry) for entry in parts],
        "content_hash": content_hash or hash_entries([*parts, *files]),
    }


def created_by(started: float) -> dict[str, Any]:
    """Who made it, how long it took and where the time went: said, but no part of any hash."""
    told = profile.summary()
    return {
        "revision": os.environ.get("LUNG_REVISION", "unknown"),
        "image": os.environ.get("LUNG_IMAGE", ""),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        **({"profile": told} if told else {}),
    }


def _unpack(packed: bytes, part: FileEntry, uri: str) -> Iterator[Row]:
    text = gzip.decompress(packed)
    if hashlib.sha256(text).hexdigest() != part.sha256:
        raise BadDataError(f"{uri}: the rows in {part.key} were changed: run its job with --force")
    return map(json.loads, text.splitlines())
