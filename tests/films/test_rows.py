"""Rows that are read: each of its type, as many as their manifest counts, each of another film."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from jobs.errors import BadDataError
from jobs.films.rows import check_inbox, in_step, prediction_rows, processed_rows
from jobs.settings.config import PreprocessConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.rows import FILE, OK_FIELDS

PREDICTED = {
    "origin": "a.png",
    "status": "ok",
    "mask": FILE,
    "height": 80,
    "width": 64,
    "lung_fraction": 0.25,
    "quality": 0.9,
    "review": False,
}
PROCESSED = {
    "id": "P1",
    "patient": "P1",
    "source": "custom",
    "label": "unknown",
    "origin": "a.png",
    "split": "train",
    **OK_FIELDS,
}

Write = Callable[[Sequence[Mapping[str, Any]], int], Manifest]


@pytest.fixture
def write(store: Store, out: str) -> Write:
    """Writes rows, and a manifest that counts so many films."""

    def write_rows(rows: Sequence[Mapping[str, Any]], films: int) -> Manifest:
        config = PreprocessConfig(raw=f"{out}/manifest.json", out=out)
        folder = WorkFolder(store, config, job="preprocess", folder="processed", recipe="test")
        list(folder.write_rows(rows, len(rows), dict))
        return folder.finish(counts={"films": films}, headline={})

    return write_rows


def predicted(*ids: str) -> list[dict[str, Any]]:
    return [{**PREDICTED, "id": film} for film in ids]


def test_rows_of_their_type_are_read_in_order(store: Store, write: Write) -> None:
    rows = predicted("b", "a", "c")
    assert list(prediction_rows(store, write(rows, 3))) == rows


@pytest.mark.parametrize("films", [2, 4])
def test_rows_that_are_more_or_fewer_than_counted_are_refused(
    store: Store, write: Write, films: int
) -> None:
    with pytest.raises(BadDataError, match=f"counts {films} films and has"):
        list(prediction_rows(store, write(predicted("a", "b", "c"), films)))


def test_two_rows_of_one_film_are_refused(store: Store, write: Write) -> None:
    with pytest.raises(BadDataError, match="has two rows of a"):
        list(prediction_rows(store, write(predicted("a", "b", "a"), 3)))


@pytest.mark.parametrize("key", ["mask", "height", "quality", "review"])
def test_a_row_without_what_its_status_promises_is_refused(
    store: Store, write: Write, key: str
) -> None:
    (row,) = predicted("a")
    del row[key]
    with pytest.raises(BadDataError, match=f"row 1: {key} of a film that is ok is missing"):
        list(prediction_rows(store, write([row], 1)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("crop", [0, 0, 80]),
        ("crop", [0, 0, 81, 64]),
        ("crop", [40, 0, 40, 64]),
        ("box", [0, 0, 513, 512]),
        ("box", [9, 0, 8, 512]),
    ],
)
def test_a_part_that_lies_outside_of_the_film_or_the_square_is_refused(
    store: Store, write: Write, key: str, value: list[int]
) -> None:
    with pytest.raises(BadDataError, match=f"row 1: .*{key}"):
        list(processed_rows(store, write([{**PROCESSED, key: value}], 1)))


def test_rows_of_several_manifests_are_of_the_same_films() -> None:
    one, other = ([{"id": film} for film in "ab"] for _ in range(2))
    assert list(in_step(iter(one), iter(other))) == [tuple(one[:1] * 2), tuple(one[1:] * 2)]
    with pytest.raises(BadDataError, match="different films, a and b"):
        list(in_step(iter(one), iter(other[1:])))
    with pytest.raises(BadDataError, match="different films, b and none"):
        list(in_step(iter(one), iter(other[:1])))


def test_a_line_break_in_a_films_name_does_not_damage_a_ledgers_row() -> None:
    listed = {"uri": "s3://lung/inbox/cr\rnew\nline.png", "etag": "e1", "run_id": "r1"}
    check_inbox({"id": "a", **PREDICTED, **listed, "origin": "cr\rnew\nline.png"}, "the row")
    with pytest.raises(BadDataError, match="uri"):
        check_inbox({"id": "a", **PREDICTED, **listed, "uri": "inbox/a.png"}, "the row")
