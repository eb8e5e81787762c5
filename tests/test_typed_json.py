"""JSON within bounds and of a type, or one line that names file, field, value and form."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from jobs.errors import BadDataError
from jobs.typed_json import Count, Fields, Fraction, Key, Name, Range, check, parse


class Film(TypedDict):
    id: Name
    height: Count
    side: NotRequired[Literal["left", "right"]]
    scores: NotRequired[dict[str, Fraction | None]]


FILM: dict[str, Any] = {"id": "P1", "height": 80}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff{}",
        b"[NaN]",
        b"[-Infinity]",
        b"[1e400]",
        b"[9223372036854775808]",
        b"9" * 5000,
        b'["\\ud800"]',
        b"[" * 100_000 + b"]" * 100_000,
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_within_bounds_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(BadDataError, match=r"^s3://lung/a\.json does not hold JSON") as caught:
        parse(data, "s3://lung/a.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\xef\xbb\xbf[1]", [1]),
        (b'{"a": 0.5}\r\n', {"a": 0.5}),
        (b'["\\ud83e\\udec1"]', ["\U0001fac1"]),
        (b"[9223372036854775807, -1e-400]", [2**63 - 1, 0.0]),
    ],
)
def test_json_of_other_writers_is_read(data: bytes, value: Any) -> None:
    assert parse(data, "a.json") == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"^rows is \[\], not an object with id, height: "),
        ({"id": "P1"}, "^rows: height is missing: "),
        (FILM | {"height": True}, "^rows: height is true, not a whole number: "),
        (FILM | {"height": 80.0}, "^rows: height is 80.0, not a whole number: "),
        (FILM | {"height": -1}, "^rows: height is -1, not a number from 0: "),
        (FILM | {"id": "../P1"}, r'^rows: id is "\.\./P1", not a name without /: '),
        (FILM | {"id": ".."}, r'^rows: id is "\.\.", not a name without /: '),
        (FILM | {"side": "lungs"}, '^rows: side is "lungs", not "left" or "right": '),
        (FILM | {"side": []}, r'^rows: side is \[\], not "left" or "right": '),
        (
            FILM | {"scores": {"dice": 1.5}},
            r"^rows: scores\.dice is 1.5, not a number from 0 to 1 or null: ",
        ),
        (FILM | {"scores": {"dice": float("nan")}}, r"scores\.dice is NaN, not a number"),
        (FILM | {"unknown": 1}, "^rows: unknown is 1, not a field of this version: "),
    ],
)
def test_the_first_wrong_field_is_named_with_its_value_and_its_form(value: Any, words: str) -> None:
    with pytest.raises(BadDataError, match=words) as caught:
        check(value, Film, "rows")
    assert str(caught.value).endswith("run its job again with --force")


def test_a_value_of_its_type_is_given_back() -> None:
    film = FILM | {"side": "left", "scores": {"dice": 1, "iou": None}}
    assert check(film, Film, "rows") is film
    assert check(film | {"unknown": 1}, Film, "rows", closed=False)
    assert check([1, 2.5], list[Annotated[float, Range(1)]], "rows") == [1, 2.5]


def test_a_long_value_is_cut() -> None:
    with pytest.raises(BadDataError) as caught:
        check("x" * 10**6, Count, "rows")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        ("rows/part-00000.jsonl.gz", True),
        ("masks/a..b.png", True),
        ("masks/…/é.png", True),
        ("", False),
        ("/a", False),
        ("../a", False),
        ("a/../../b", False),
        ("a/..", False),
        ("./a", False),
        ("a\nb", False),
    ],
)
def test_a_key_stays_below_its_manifests_folder(key: str, accepted: bool) -> None:
    if accepted:
        assert check(key, Key, "a.json") == key
    else:
        with pytest.raises(BadDataError, match="a key below its manifest's folder"):
            check(key, Key, "a.json")


def test_a_missing_field_of_a_header_is_named_where_it_is_needed() -> None:
    counts = Fields({"films": 3}, "counts", "s3://lung/manifest.json")
    assert counts == {"films": 3} and counts["films"] == 3 and counts.get("masks") is None
    with pytest.raises(BadDataError, match=r"^s3://lung/manifest\.json: counts\.masks is missing"):
        counts["masks"]
