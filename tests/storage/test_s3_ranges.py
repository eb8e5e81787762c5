"""Parts of an object: the bytes asked for, resumed after a cut, never of another version."""

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


def test_an_objects_size_and_etag_are_those_of_its_listing(store: Store, out: str) -> None:
    store.write(f"{out}/film", DATA)
    assert [store.stat(f"{out}/film")] == list(store.list_objects(f"{out}/film"))
    with pytest.raises(errors.NotFoundError):
        store.stat(f"{out}/absent")


def test_an_object_that_was_replaced_is_noticed(store: Store, out: str) -> None:
    store.write(f"{out}/film", DATA)
    found = store.stat(f"{out}/film")
    store.write(f"{out}/film", DATA[::-1])
    with pytest.raises(errors.ConflictError, match="changed while it was read") as raised:
        list(store.stream(found, 0, 10))
    assert raised.value.exit_code == 75


def test_a_server_that_heeds_no_condition_is_caught_by_the_etag(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/film", DATA)
    found = store.stat(f"{out}/film")
    store.write(f"{out}/film", DATA[::-1])
    real = store._client.get_object

    def careless(**request: Any) -> Any:
        del request["IfMatch"]
        return real(**request)

    monkeypatch.setattr(store._client, "get_object", careless)
    with pytest.raises(errors.ConflictError, match="changed while it was read"):
        list(store.stream(found, 0, 10))


class Cut:
    """A body that ends with a reset after one chunk."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield next(self._body.iter_chunks(size))
        raise ConnectionResetError("cut")

    def close(self) -> None:
        self._body.close()


def test_a_cut_body_goes_on_where_it_was_cut(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/film", DATA)
    monkeypatch.setattr(s3, "CHUNK", 100_000)
    real, asked = store._client.get_object, []

    def cutting(**request: Any) -> Any:
        asked.append(request["Range"])
        answer = real(**request)
        return answer | {"Body": Cut(answer["Body"])} if len(asked) < 3 else answer

    monkeypatch.setattr(store._client, "get_object", cutting)
    assert stream(store, f"{out}/film", 0, 300_000) == DATA
    assert asked == ["bytes=0-299999", "bytes=100000-299999", "bytes=200000-299999"]
    assert store.retries == 2


def test_bodies_that_never_bring_a_byte_are_given_up(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/film", DATA)
    found = store.stat(f"{out}/film")
    real, asked = store._client.get_object, []

    def dead(**request: Any) -> Any:
        asked.append(request["Range"])
        answer = real(**request)
        answer["Body"].iter_chunks = _reset
        return answer

    monkeypatch.setattr(store._client, "get_object", dead)
    with pytest.raises(errors.ServiceUnavailableError):
        list(store.stream(found, 0, 10))
    assert len(asked) == s3.BODY_ATTEMPTS


def _reset(size: int) -> Iterator[bytes]:
    raise ConnectionResetError("cut")


def test_a_large_object_arrives_as_it_was_sent(store: Store, out: str) -> None:
    """Above a megabyte it is sent in pieces, with its checksum."""
    data = os.urandom(3 * 2**20 + 1)
    store.write(f"{out}/film", data)
    assert store.read(f"{out}/film") == data
