"""The sheet: the order to look at masks, and where each page of it lies."""

from __future__ import annotations

import itertools
import json
from typing import Any

from jobs.films.sheet import FILMS_PER_PAGE, SHEET_JSON, SHEET_ROWS, Sheet


def row(name: str, **columns: Any) -> Any:
    return {"id": name, "origin": name, "status": "ok", "quality": 0.9, "review": False} | columns


def files_of(rows: list[Any]) -> tuple[Any, bytes]:
    sheet = Sheet()
    for item in rows:
        sheet.add(item)
    files = sheet.files(run_id="r", counts={"films": 3}, model={"version": "v"}, skipped={"x": 1})
    return json.loads(files[SHEET_JSON]), files[SHEET_ROWS]


def test_masks_for_review_come_first_the_lowest_quality_at_the_top() -> None:
    summary, rows = files_of(
        [
            row("fine"),
            row("broken", status="failed", reason="truncated"),
            row("doubtful", quality=0.5, review=True, reason="quality 0.5 is below 0.8"),
            row("fine too"),
            row("empty", quality=0, review=True, reason="no lung was found"),
            row("doubtful too", quality=0.5, review=True),
        ]
    )
    names = [json.loads(line)["origin"] for line in rows.splitlines()]
    assert names == ["empty", "doubtful", "doubtful too", "broken", "fine", "fine too"]
    assert summary["sections"] == {"review": 3, "failed": 1, "others": 2}
    assert summary["run_id"] == "r"
    assert (summary["counts"], summary["skipped"]) == ({"films": 3}, {"x": 1})
    assert summary["model"] == {"version": "v"}


def test_each_page_is_a_range_of_whole_lines() -> None:
    count = 2 * FILMS_PER_PAGE + 1
    summary, rows = files_of([row(f"film {number} é\n") for number in range(count)])
    pages = [
        [json.loads(line)["origin"] for line in rows[start:stop].splitlines()]
        for start, stop in itertools.pairwise(summary["pages"])
    ]
    assert list(map(len, pages)) == [FILMS_PER_PAGE, FILMS_PER_PAGE, 1]
    assert pages[1][0] == f"film {FILMS_PER_PAGE} é\n"
    assert summary["pages"][-1] == len(rows)


def test_a_full_last_page_is_not_followed_by_an_empty_one() -> None:
    summary, rows = files_of([row(f"{number}") for number in range(FILMS_PER_PAGE)])
    assert summary["pages"] == [0, len(rows)]


def test_without_films_there_is_no_page() -> None:
    assert files_of([])[0]["pages"] == [0]


def test_a_line_says_what_the_page_shows_and_no_more() -> None:
    _, rows = files_of([row("a", mask={"key": "masks/a.png"}, uri="s3://b/a", etag="x")])
    assert json.loads(rows).keys() == {"origin", "status", "quality", "review"}
