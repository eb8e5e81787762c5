"""Objects over their bounds are refused before their body is read, on a real S3 server."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from botocore.response import StreamingBody

from jobs.errors import BadDataError
from jobs.models.champion import read_champion
from jobs.storage import bounds
from jobs.storage.bounds import JSON_BYTES, check_memory, parse_json
from jobs.storage.ledger import Ledger
from jobs.storage.manifest import LARGEST_ROW, LARGEST_ROWS, read_manifest, rows_of
from jobs.storage.s3 import Store
from jobs.storage.work_folder import pack_rows

Read = Callable[[Store, str], Any]
READERS: dict[str, Read] = {
    "any object": lambda store, uri: store.read(uri),
    "JSON": lambda store, uri: store.read_json(uri),
    "a manifest": read_manifest,
    "the champion": read_champion,
    "many objects": lambda store, uri: list(store.read_many([uri])),
}


@pytest.mark.parametrize("name", READERS)
def test_an_object_too_large_for_the_jobs_memory_is_refused_before_its_body_is_read(
    name: str, store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(uri := f"{out}/object", b" " * 1001)
    monkeypatch.setattr(bounds, "job_memory", lambda: 4000)
    monkeypatch.setattr(StreamingBody, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(BadDataError, match=r"1001 bytes, .* over 1000, a quarter of this job's"):
        READERS[name](store, uri)


def test_an_object_larger_than_the_callers_bound_is_refused_before_its_body_is_read(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(uri := f"{out}/object", bytes(1001))
    assert store.read(uri, largest=1001) == bytes(1001)
    monkeypatch.setattr(StreamingBody, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(
        BadDataError, match=r"has 1001 bytes, no job writes more than 1000: .*force"
    ):
        store.read(uri, largest=1000)


def test_a_ledgers_part_over_its_bound_is_refused_with_its_name(store: Store, out: str) -> None:
    uri = f"{out}/ledger/part-000000.jsonl.gz"
    rows = [{"origin": "x" * LARGEST_ROW, "etag": "", "status": "ok"}]
    store.write(uri, pack_rows(rows))
    with pytest.raises(BadDataError, match=rf"a row of {uri} has \d+ bytes"):
        list(Ledger(store, f"{out}/ledger").read())


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "nul", "\ud800".encode("utf-8", "surrogatepass")]
)
def test_json_that_cannot_be_parsed_is_bad_data_and_never_a_recursion(text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(BadDataError, match=r"^history.json (is nested|does not hold)"):
        parse_json(data, "history.json")


@pytest.mark.parametrize("line", [b"[]", b'"film"', b"7"])
def test_a_line_that_is_no_row_is_bad_data(line: bytes) -> None:
    with pytest.raises(
        BadDataError, match=r"a row of rows/part-00000\.jsonl\.gz is .*, not an object"
    ):
        list(rows_of(b'{"id": 1}\n' + line + b"\n", "rows/part-00000.jsonl.gz"))


@pytest.mark.parametrize(
    "item",
    [
        "[]",
        "{}",
        '{"":0}',
        "[" * 800 + "]" * 800,
        '{"":' * 800 + "0" + "}" * 800,
        "0.5",
        '"ä"',
        "1234567890",
    ],
)
def test_parsed_json_takes_no_more_than_the_bound_counts_on(item: str) -> None:
    data = f"[{','.join([item] * 100)}]".encode()
    tracemalloc.start()
    value = json.loads(data)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(value) == 100
    assert taken < JSON_BYTES * len(data)


def test_a_megabyte_of_json_is_refused_where_it_would_take_a_quarter_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "job_memory", lambda: 4 * JSON_BYTES * 10**6)
    check_memory("model.json", 10**6, JSON_BYTES)
    with pytest.raises(
        BadDataError, match=r"^model.json has 1000001 bytes, which take 48000048 in"
    ):
        check_memory("model.json", 10**6 + 1, JSON_BYTES)


def test_the_largest_rows_of_a_real_set_are_far_below_the_bounds() -> None:
    # S3 keys have at most 1024 bytes, a row names a film and three masks, a part has 256 rows.
    name = "\u0001" * 1024
    file = {"key": name, "bytes": 2**40, "sha256": "f" * 64}
    row = {"id": name, "origin": name, "patient": name, "film": file, "masks": [file] * 3}
    line = json.dumps(row).encode()
    assert len(line) < LARGEST_ROW
    assert 256 * len(line) < LARGEST_ROWS
