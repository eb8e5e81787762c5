"""The ledger's parts: numbered on after a gap, and one writer at a time."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import ConflictError
from jobs.storage.ledger import Ledger
from jobs.storage.s3 import Store


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"origin": name, "etag": "e", "status": "ok"} for name in names]


def opened(store: Store, out: str) -> Ledger:
    ledger = Ledger(store, f"{out}/ledger")
    list(ledger.read())
    return ledger


def test_a_part_that_was_deleted_leaves_a_ledger_that_can_be_appended_to(
    store: Store, out: str
) -> None:
    first = opened(store, out)
    for name in ("a", "b", "c"):
        first.append(rows(name))
    store.delete([f"{out}/ledger/part-000001.jsonl.gz"])
    second = opened(store, out)
    second.append(rows("d"))
    assert second.ok("b", "e") is None
    again = Ledger(store, f"{out}/ledger")
    assert [row["origin"] for row in again.read()] == ["a", "c", "d"]


def test_of_two_writers_of_one_part_the_second_is_refused(store: Store, out: str) -> None:
    one, other = opened(store, out), opened(store, out)
    one.append(rows("a"))
    with pytest.raises(ConflictError):
        other.append(rows("b"))
    assert [row["origin"] for row in opened(store, out).read()] == ["a"]


def test_a_part_whose_put_was_sent_twice_is_written_once(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first response is lost; the second request meets the object of the first."""
    ledger, put = opened(store, out), Store.write

    def lose_the_first_response(self: Store, *arguments: Any, **options: Any) -> str:
        put(self, *arguments, **options)
        return put(self, *arguments, **options)

    monkeypatch.setattr(Store, "write", lose_the_first_response)
    ledger.append(rows("a"))
    assert ledger.ok("a", "e") is True
