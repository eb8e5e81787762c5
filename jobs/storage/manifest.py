"""Manifests: what a job wrote into its folder in S3, from which inputs, with which settings.

<out>/<folder>/<fingerprint>/rows/part-00000.jsonl.gz   a row per film, written part by part
<out>/<folder>/<fingerprint>/...                        the job's files
<out>/<folder>/<fingerprint>/manifest.json              the header, written last: the job is done
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from jobs import typed_json
from jobs.errors import BadDataError, ConfigError
from jobs.runtime import profile
from jobs.storage.bounds import LARGEST_JSON, check_bound, parse_json
from jobs.storage.headers import CONFIGS, DETAILS, CreatedBy, InputJson
from jobs.storage.s3 import Store
from jobs.storage.verified_read import read_checked
from jobs.typed_json import Count, Fields, Key, Sha256

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
# Bytes of the rows of one part, and of one row: the largest have some 100 KB and a few KB.
LARGEST_ROWS, LARGEST_ROW = 16 * 2**20, 2**18
# The zlib format with gzip's header and checksum.
GZIP = 16 + zlib.MAX_WBITS


class FileRow(TypedDict):
    """A `FileEntry` as JSON, in rows and headers."""

    key: Key
    bytes: Count
    sha256: Sha256


class Header(TypedDict):
    """manifest.json; `Manifest` says what its fields are."""

    schema_version: int
    job: str
    recipe: str
    created_by: CreatedBy
    inputs: dict[str, InputJson]
    config: dict[str, Any]
    counts: dict[str, Count]
    headline: dict[str, Any]
    details: dict[str, Any]
    files: list[FileRow]
    records: list[FileRow]
    parts: list[FileRow]
    content_hash: str


@dataclass(frozen=True)
class FileEntry:
    """An object that a manifest lists; `key` is relative to its folder, `sha256` is hex."""

    key: str
    bytes: int
    sha256: str

    def row(self) -> FileRow:
        return FileRow(key=self.key, bytes=self.bytes, sha256=self.sha256)


def describe(key: str, data: bytes) -> FileEntry:
    """The entry of an object that holds `data`."""
    return FileEntry(key, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """A manifest's header: job, inputs, settings, counts and the objects written.

    content_hash: over key, bytes and sha256 of `parts` and `files`; the rows in the parts hold the
        sha256 of every film and mask. Files with timings are in `records`, outside the hash.
    inputs: {name: {"uri", "content_hash"}} of the manifests that the job read.
    config: the settings that decide the bytes written. headline: the few figures to print.
    reused: whether an earlier run wrote it; not part of the JSON.
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
        """A task's result as JSON: the URIs of the manifest and its files, headline figures."""
        return {
            "job": self.job,
            "manifest": self.uri,
            "content_hash": self.content_hash,
            "reused": self.reused,
            "seconds": round(seconds, 2),
            "headline": self.headline,
            "files": {entry.key: self.uri_of(entry.key) for entry in (*self.files, *self.records)},
        }

    def rows(self, store: Store) -> Iterator[dict[str, Any]]:
        """Every row in order, one part in memory at a time; `jobs.films.rows` gives their types."""
        for part in self.parts:
            uri = self.uri_of(part.key)
            read = functools.partial(store.read, uri, largest=LARGEST_ROWS)
            yield from read_checked(uri, read, functools.partial(_unpack, part, self.uri))

    def read_file(self, store: Store, key: str) -> bytes:
        """A file of the manifest; BadDataError where it is not listed or its sha256 differs."""
        for entry in (*self.files, *self.records):
            if entry.key == key:
                return store.read(self.uri_of(key), sha256=entry.sha256)
        raise BadDataError(f"{self.uri} lists no {key}: it was not written by this version")

    def read_json(self, store: Store, key: str) -> Any:
        """The value of a JSON file of the manifest; BadDataError as `read_file` raises it."""
        return parse_json(self.read_file(store, key), self.uri_of(key))


def read_manifest(store: Store, uri: str, job: str = "") -> Manifest:
    """Load a header.

    Raises BadDataError where it is not a manifest of this schema version, ConfigError where it is
    the manifest of another job than `job`.
    """
    read = functools.partial(store.read, uri, largest=LARGEST_JSON)
    manifest = read_checked(uri, read, functools.partial(_parse, uri))
    if job and manifest.job != job:
        raise ConfigError(f"{uri} is the manifest of {manifest.job}: give that of {job}")
    return manifest


def _parse(uri: str, data: bytes) -> Manifest:
    """The header; BadDataError where it is none, or its content hash is not that of its files."""
    value = parse_json(data, uri)
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise BadDataError(
            f"{uri} is not a manifest of schema version {SCHEMA_VERSION}: run its job again"
        )
    manifest = manifest_of(uri, _checked_header(uri, value))
    # Publish's hash is of its inputs and settings, as its report says when it was made.
    found = hash_entries([*manifest.parts, *manifest.files])
    if manifest.job != "publish" and manifest.content_hash != found:
        raise BadDataError(
            f"{uri} was edited or damaged: its content hash is not that of its list of files "
            f"({found}, not {manifest.content_hash}): delete it, and run its job again"
        )
    return manifest


def read_input(store: Store, manifest: Manifest, name: str, job: str) -> Manifest:
    """The header of the input `name` of a manifest.

    Raises BadDataError where there is none, or where it has other content than when it was read.
    """
    recorded = manifest.inputs[name]
    found = read_manifest(store, recorded["uri"], job)
    if found.content_hash != recorded["content_hash"]:
        raise BadDataError(
            f"{manifest.uri} was made from {name} {recorded['content_hash'][:12]}, and {found.uri} "
            f"is {found.content_hash[:12]}: one of them was edited, run their jobs again with "
            "--force"
        )
    return found


def manifest_of(uri: str, value: Mapping[str, Any]) -> Manifest:
    """The manifest whose header's JSON is `value`, which is a `Header`."""
    entries = {
        name: [FileEntry(**entry) for entry in value[name]]
        for name in ("files", "records", "parts")
    }
    fields = {
        name: Fields(value[name], name, uri)
        for name in ("inputs", "config", "counts", "headline", "details", "created_by")
    }
    return Manifest(uri=uri, **{**value, **fields, **entries})


def _checked_header(uri: str, value: Any) -> Header:
    """The JSON of a header; BadDataError where a field is missing, unknown or of another type."""
    header: Header = typed_json.check(value, Header, uri)
    for name, forms in (("config", CONFIGS), ("details", DETAILS)):
        form, fields = forms.get(header["job"]), header[name]  # type: ignore[literal-required]
        # A job that has no use for a field of the settings may leave it out.
        if form and fields:
            typed_json.check(fields, form, f"{uri}: {name}", closed=False)
    return header


def fingerprint(
    *, job: str, recipe: str, inputs: Mapping[str, str], config: Mapping[str, Any], salt: str = ""
) -> str:
    """16 hex digits over the inputs' content hashes, the settings and the recipe version.

    Dates, prefixes and the code's revision are left out, so that the same work has the same name.
    """
    identity = {"job": job, "recipe": recipe, "inputs": inputs, "config": config, "salt": salt}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


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
    """Revision, image, start (UTC), seconds and profile of the running job; in no hash."""
    summary = profile.summary()
    return {
        "revision": os.environ.get("LUNG_REVISION", "unknown"),
        "image": os.environ.get("LUNG_IMAGE", ""),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        **({"profile": summary} if summary else {}),
    }


def inflate(packed: bytes, name: str, limit: int = LARGEST_ROWS) -> bytes:
    """The content of a gzip file; BadDataError where it is damaged or has over `limit` bytes."""
    stream = zlib.decompressobj(GZIP)
    try:
        # One byte more than `limit` tells a longer content; no limit would be 0.
        content = stream.decompress(packed, limit + 1)
    except zlib.error as error:
        raise BadDataError(f"{name} is damaged ({error}): run its job with --force") from error
    if len(content) > limit or not stream.eof:
        problem = f"holds more than {limit} bytes" if len(content) > limit else "is truncated"
        raise BadDataError(f"{name} {problem}, it was changed: run its job with --force")
    return content


def _unpack(part: FileEntry, uri: str, packed: bytes) -> Iterator[dict[str, Any]]:
    text = inflate(packed, f"{uri}: {part.key}", min(part.bytes, LARGEST_ROWS))
    if (found := hashlib.sha256(text).hexdigest()) != part.sha256:
        raise BadDataError(
            f"{uri}: the rows in {part.key} were changed: their sha256 is {found}, not "
            f"{part.sha256}: run its job with --force"
        )
    return rows_of(text, f"{uri}: {part.key}")


def rows_of(text: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The row of each line of a part; BadDataError for a line that is none."""
    name_of_row = f"a row of {name}"
    for line in io.BytesIO(text):
        check_bound(name_of_row, len(line), LARGEST_ROW)
        yield typed_json.check(typed_json.parse(line, name_of_row), dict[str, Any], name_of_row)
