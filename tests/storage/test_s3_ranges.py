"""Ranges of an object: resumed after a cut, refused once the object is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from jobs import errors
from jobs.storage import s3
from jobs.storage.s3 import Store

DATA = os.urandom(300_000)


def stream(store: Store, uri: str, start: int, stop: int) -> bytes:
    return b"".join(store.stream(store.stat(uri), start, stop))


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 300_000), (0, 1), (299_999, 300_000), (1000, 250_000), (7, 7)]
)
def test_a_range_is_those_bytes(store: Store, out: str, start: int, stop: int) -> None:
    store.write(f"{out}/film", DATA)
    assert stream(store, f"{out}/film", start, stop) == DATA[start:stop]


def test_an_objects_size_and_etag_equal_those_of_its_listing(store: Store, out: str) -> None:
    store.write(f"{out}/film", DATA)
    assert [store.stat(f"{out}/film")] == list(store.list_objects(f"{out}/film"))
    with pytest.raises(errors.NotFoundError):
        store.stat(f"{out}/absent")


def test_an_object_that_was_replaced_is_refused(store: Store, out: str) -> None:
    store.write(f"{out}/film", DATA)
    item = store.stat(f"{out}/film")
    store.write(f"{out}/film", DATA[::-1])
    with pytest.raises(errors.ConflictError, match="changed while it was read") as raised:
        list(store.stream(item, 0, 10))
    assert raised.value.exit_code == 75


def test_a_replaced_object_is_refused_also_where_the_server_ignores_if_match(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/film", DATA)
    item = store.stat(f"{out}/film")
    store.write(f"{out}/film", DATA[::-1])
    real = store._client.get_object

    def ignores_if_match(**request: Any) -> Any:
        del request["IfMatch"]
        return real(**request)

    monkeypatch.setattr(store._client, "get_object", ignores_if_match)
    with pytest.raises(errors.ConflictError, match="changed while it was read"):
        list(store.stream(item, 0, 10))


class Cut:
    """A body that ends with a reset after one chunk."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield next(self._body.iter_chunks(size))
        raise ConnectionResetError("cut")

    def close(self) -> None:
        self._body.close()


def test_a_cut_body_is_resumed_at_the_cut(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/film", DATA)
    monkeypatch.setattr(s3, "CHUNK", 100_000)
    real, ranges = store._client.get_object, []

    def cuts_twice(**request: Any) -> Any:
        ranges.append(request["Range"])
        response = real(**request)
        return response | {"Body": Cut(response["Body"])} if len(ranges) < 3 else response

    monkeypatch.setattr(store._client, "get_object", cuts_twice)
    assert stream(store, f"{out}/film", 0, 300_000) == DATA
    assert ranges == ["bytes=0-299999", "bytes=100000-299999", "bytes=200000-299999"]
    assert store.retries == 2


def test_bodies_that_never_yield_a_byte_end_after_some_attempts(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/film", DATA)
    item = store.stat(f"{out}/film")
    real, ranges = store._client.get_object, []

    def sends_nothing(**request: Any) -> Any:
        ranges.append(request["Range"])
        response = real(**request)
        response["Body"].iter_chunks = _reset
        return response

    monkeypatch.setattr(store._client, "get_object", sends_nothing)
    with pytest.raises(errors.ServiceUnavailableError):
        list(store.stream(item, 0, 10))
    assert len(ranges) == s3.BODY_ATTEMPTS


def _reset(size: int) -> Iterator[bytes]:
    raise ConnectionResetError("cut")


def test_an_object_over_a_megabyte_is_streamed_with_its_checksum(store: Store, out: str) -> None:
    data = os.urandom(3 * 2**20 + 1)
    store.write(f"{out}/film", data)
    assert store.read(f"{out}/film") == data
