"""The text and figures of the page that shows a run's masks."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lung import masks_page
from lung.mask_sheet import Film, Sheet, Table
from lung.masks_page import Frame, figures, links, words_of_sheet, words_of_state
from lung.run_failures import Failure
from lung.run_report_page import Run
from tests.support.pages import Page

HOSTILE = '"><script>alert(1)</script>\u202e'
RUN = Run("r", "success", {"predict": "success"})
FRAME = Frame(RUN, "predict")


def sheet(review: int = 0, failed: int = 0, others: int = 0, **changes: Any) -> Sheet:
    fields: dict[str, Any] = {
        "uri": "s3://b/p/predictions/f/sheet.json",
        "masks": "s3://b/p/predictions/f",
        "run_id": "r",
        "counts": {},
        "sections": {"review": review, "failed": failed, "others": others},
        "model": {"name": "", "version": "v1", "val_dice": 0.9421},
        "skipped": {},
        "pages": [0, 10],
    }
    return Sheet(**fields | changes)


@pytest.mark.parametrize(
    ("of", "title", "text"),
    [
        (sheet(others=1), "1 mask", "By the model version v1, validation Dice 0.942."),
        (sheet(1200, 3, 5000), "6,200 masks, 1,200 for review", "Masks for review come first"),
        (sheet(failed=2), "0 masks", "version v1"),
        (
            sheet(others=2, model={"name": "lung-unet", "version": "v1", "val_dice": None}),
            "2 masks",
            "By the model lung-unet, version v1.",
        ),
        (sheet(pages=[0]), "No new films", "The model is version v1"),
        (
            sheet(model={"name": "lung-unet", "version": "none", "val_dice": None}),
            "No model to mask with",
            "first champion",
        ),
    ],
)
def test_the_title_and_the_text_say_how_many_masks_by_which_model(
    of: Sheet, title: str, text: str
) -> None:
    assert words_of_sheet(of)[0] == title
    assert text in words_of_sheet(of)[1]


@pytest.mark.parametrize(
    ("state", "tasks", "job", "parts", "title", "text"),
    [
        ("running", {"train": "running"}, "predict", (0, 0), "not begun", "after the task predict"),
        ("queued", {}, "inbox", (0, 0), "not begun", "after the task inbox"),
        ("running", {"inbox": "running"}, "inbox", (0, 0), "has begun", "when it is done"),
        (
            "running",
            {"predict": "running"},
            "predict",
            (12, 64),
            "12 of 64 parts",
            "after the last",
        ),
        ("failed", {"predict": "failed"}, "predict", (12, 64), "stopped after 12", "goes on"),
        ("running", {"predict": "failed"}, "predict", (0, 64), "stopped", "Once mended"),
        ("failed", {"train": "failed"}, "predict", (0, 0), "No masks", "train failed"),
        ("running", {"predict": "up_for_retry"}, "predict", (1, 64), "1 of 64", "after the last"),
        ("running", {"inbox": "up_for_retry"}, "inbox", (0, 0), "is retried", "after the task"),
        ("running", {"predict": "success"}, "predict", (7, 8), "7 of 8", "after the last"),
        ("failed", {"predict": "success"}, "predict", (7, 8), "stopped after 7", "goes on"),
        ("success", {"predict": "success"}, "predict", (8, 8), "No masks", "were deleted"),
        ("failed", {"predict": "upstream_failed"}, "predict", (1, 8), "stopped after 1", "goes on"),
        ("success", {"inbox": "removed"}, "inbox", (0, 0), "No masks", "is over"),
        ("success", {"inbox": "success"}, "inbox", (0, 0), "No masks", "names no masks"),
    ],
)
def test_without_masks_the_page_says_why_and_when(
    state: str, tasks: dict[str, str], job: str, parts: tuple[int, int], title: str, text: str
) -> None:
    page_title, page_text = words_of_state(Run("r", state, tasks), job, *parts)
    assert title in page_title
    assert text in page_text


def test_the_figures_count_films_of_this_run_and_of_the_inbox() -> None:
    numbers = {name: number for name, number, _ in figures("predict", sheet(450, 2, 48))}
    assert numbers == {"Films": 500, "Masks": 498, "For review": 450, "Failed": 2}
    of_inbox = sheet(others=3, counts={"films": 10, "new": 3})
    assert figures("inbox", of_inbox)[:2] == [
        ("Films in the inbox", 10, ""),
        ("Done before", 7, ""),
    ]


def test_a_count_leads_to_the_first_page_of_its_films() -> None:
    to = {name: link for name, _, link in figures("predict", sheet(450, 2, 48))}
    assert to["For review"] == "?page=1#review"
    assert to["Failed"] == "?page=3#failed"
    assert to["Masks"] == ""


@pytest.mark.parametrize(
    ("page", "count", "shown"),
    [
        (1, 0, []),
        (1, 1, []),
        (1, 2, [1, 2]),
        (1, 5000, [1, 2, 3, 0, 5000]),
        (4, 7, [1, 2, 3, 4, 5, 6, 7]),
        (2500, 5000, [1, 0, 2498, 2499, 2500, 2501, 2502, 0, 5000]),
        (5000, 5000, [1, 0, 4998, 4999, 5000]),
    ],
)
def test_of_thousands_of_pages_the_first_the_near_and_the_last_are_linked(
    page: int, count: int, shown: list[int]
) -> None:
    assert links(page, count) == shown


def test_each_film_has_its_picture_its_name_and_its_reason() -> None:
    films = [
        Film("a.png", True, True, "no lung was found", (30, 20), 0.0, 0.0, ("k", 0, 3)),
        Film("b.png", False, False, "truncated"),
        Film("c.png", True, False, "", (30, 20), 0.951, 0.26, ("k", 3, 3)),
    ]
    html = masks_page.of_sheet(FRAME, sheet(1, 1, 1), 1, films, [b"one", None, None])
    page = Page(html.encode())
    assert "no lung was found" in page.text
    assert "truncated" in page.text
    assert "quality 0.951 · 20 × 30 · lung 26 %" in page.text
    sources = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert sources == ["data:image/jpeg;base64," + base64.b64encode(b"one").decode()]
    assert page.text.count("No picture") == 2
    ids = [attributes["id"] for tag, attributes in page.elements if tag == "h2"]
    assert ids == ["review", "failed", "others"]


def test_reused_masks_name_the_run_that_made_them() -> None:
    html = masks_page.of_sheet(FRAME, sheet(others=1), 1, [], [], reused_from="manual__1")
    assert "The run manual__1 made them, this one reused them." in Page(html.encode()).text


def test_files_that_were_passed_over_are_counted_by_reason_most_first() -> None:
    made = sheet(others=1, skipped={"masks": 2, "text and metadata": 1200})
    text = Page(masks_page.of_sheet(FRAME, made, 1, [], []).encode()).text
    assert "passed over: text and metadata 1,200, masks 2." in text
    assert "s3://b/p/predictions/f/skipped.csv" in text


def test_a_run_of_an_earlier_version_has_its_doubtful_films_in_a_list_without_pictures() -> None:
    listed = [Film("a.png", True, True, quality=0.4), Film("b.png", False, False, "truncated")]
    table = Table("s3://b/t.csv", 900, {"review": 1, "failed": 1, "others": 898}, listed)
    page = Page(masks_page.of_table(FRAME, table).encode())
    assert "899 masks, 1 for review" in page.text
    assert "kept no pictures" in page.text
    assert "a.png 0.400 low quality, or no lung" in page.text
    assert "b.png truncated" in page.text
    assert "s3://b/t.csv" in page.text
    assert not [tag for tag, _ in page.elements if tag == "img"]


def test_html_and_control_characters_in_names_are_escaped() -> None:
    film = Film(HOSTILE, True, True, HOSTILE, (1, 1), 0.1, 0.1)
    made = sheet(1, skipped={HOSTILE: 1}, run_id=HOSTILE)
    frame = Frame(Run(HOSTILE, "success", {}), "predict")
    table = Table(HOSTILE, 1, {"review": 1, "failed": 0, "others": 0}, [film])
    for html in (
        masks_page.of_sheet(frame, made, 1, [film], [None], reused_from=HOSTILE),
        masks_page.of_table(frame, table),
        masks_page.of_state(frame, parts=(1, 2)),
    ):
        page = Page(html.encode())
        assert "script" not in {tag for tag, _ in page.elements}
        assert "\u202e" not in html


def test_why_a_task_failed_stands_above_the_masks() -> None:
    failure = Failure("inbox", "inbox failed on try 3 of 3.", "Mend it.", "S3 does not answer")
    frame = Frame(Run("r", "failed", {"inbox": "failed"}, failures=[failure]), "inbox")
    film = Film("a.png", True, False)
    table = Table("s3://b/t.csv", 1, {"review": 0, "failed": 0, "others": 1}, [])
    for html in (
        masks_page.of_sheet(frame, sheet(others=1), 1, [film], [None]),
        masks_page.of_table(frame, table),
        masks_page.of_state(frame),
    ):
        text = Page(html.encode()).text
        assert "inbox failed on try 3 of 3. Mend it." in text
        assert "S3 does not answer" in text
