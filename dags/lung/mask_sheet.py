"""The sheet of a run's masks: its films in the order of the page, read from JSON and CSV.

What these files hold may have been edited: a field that no job writes raises ValueError, or another
of WRONG.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

# The largest size of a page and of a preview, in bytes.
LARGEST_PAGE, LARGEST_PREVIEW = 4 * 2**20, 2**18
FILMS_PER_PAGE = 200
# Films of a table that the page lists; it says where the table is.
ROWS_LISTED = 1000
LARGEST_NUMBER = 2**53
# Of a model and of its version, each a folder.
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PACK = re.compile(r"previews/[0-9a-f]{16}\.bin")
# What reading an edited file raises.
WRONG = (
    *(AttributeError, csv.Error, KeyError, OverflowError),
    *(RecursionError, TypeError, ValueError),
)

T = TypeVar("T")


@dataclass(frozen=True)
class Film:
    """A film of the sheet; `preview` is (key of the pack, first byte, bytes)."""

    name: str
    is_masked: bool
    is_for_review: bool
    reason: str = ""
    size: tuple[int, int] | None = None  # height, width
    quality: float | None = None
    lung_fraction: float | None = None
    preview: tuple[str, int, int] | None = None


@dataclass(frozen=True)
class Sheet:
    """The sheet of a run's masks.

    uri: of sheet.json. masks: of the folder that the previews are below.
    sections: the number of films for review, of those that failed, and of the others, in order.
    pages: the first byte of each page in sheet.jsonl, and the end of the last one.
    """

    uri: str
    masks: str
    run_id: str
    counts: Mapping[str, int]
    sections: Mapping[str, int]
    model: Mapping[str, Any]
    skipped: Mapping[str, int]
    pages: Sequence[int]

    @property
    def films(self) -> int:
        return sum(self.sections.values())


@dataclass(frozen=True)
class Table:
    """What predictions.csv or masks.csv says where there is no sheet: counts and doubtful films."""

    uri: str
    films: int
    sections: Mapping[str, int]
    listed: Sequence[Film]


def sheet_of(content: Any, uri: str, masks: str, out: str) -> Sheet:
    """The sheet whose JSON is `content`, at `uri`.

    Args:
        masks: URI of the folder that the previews are below, "" for that of the sheet's model.
        out: LUNG_BUCKET_URI.
    """
    given = content["model"]
    model = {
        "name": matching(FOLDER, given["name"]) if "name" in given else "",
        "version": matching(FOLDER, given["version"]),
        "val_dice": _maybe(_share, given["val_dice"]),
    }
    sections = {name: whole(content["sections"][name]) for name in ("review", "failed", "others")}
    pages = [whole(place) for place in content["pages"]]
    lengths = [stop - start for start, stop in itertools.pairwise(pages)]
    if (
        content["films_per_page"] != FILMS_PER_PAGE
        or len(lengths) != -(-sum(sections.values()) // FILMS_PER_PAGE)
        or not all(0 < length <= LARGEST_PAGE for length in lengths)
    ):
        raise ValueError(pages)
    return Sheet(
        uri=uri,
        masks=masks or f"{out}/masks/{model['name']}/{model['version']}",
        run_id=_text(content["run_id"]),
        counts=_numbers(content["counts"]),
        sections=sections,
        model=model,
        skipped=_numbers(content["skipped"]),
        pages=pages,
    )


def film_of(row: Any) -> Film:
    preview, size = row.get("preview"), row.get("height")
    return Film(
        name=_text(row["origin"]),
        is_masked=_text(row["status"]) == "ok",
        is_for_review=row.get("review", False) is True,
        reason=_text(row.get("reason", "")),
        size=None if size is None else (whole(size), whole(row["width"])),
        quality=_maybe(_share, row.get("quality")),
        lung_fraction=_maybe(_share, row.get("lung_fraction")),
        preview=_maybe(_place, preview),
    )


def _place(preview: Any) -> tuple[str, int, int]:
    key = matching(PACK, preview["key"])
    return key, whole(preview["offset"]), whole(preview["bytes"], 1, LARGEST_PREVIEW)


def table_of(data: bytes, uri: str) -> Table:
    sections, listed = {"review": 0, "failed": 0, "others": 0}, list[Film]()
    rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
    # masks.csv names a film by its URI.
    (name,) = {"origin", "film"} & set(rows.fieldnames or ())
    for row in rows:
        is_masked, is_for_review = row["status"] == "ok", row["review"] == "True"
        section = "failed" if not is_masked else "review" if is_for_review else "others"
        sections[section] += 1
        if section != "others" and len(listed) < ROWS_LISTED:
            quality = _share(float(row["quality"])) if row["quality"] else None
            reason = _text(row["reason"] or "")
            film = Film(_text(row[name]), is_masked, is_for_review, reason, quality=quality)
            listed.append(film)
    return Table(uri, sum(sections.values()), sections, listed)


def _maybe(check: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else check(value)


def whole(value: Any, least: int = 0, most: int = LARGEST_NUMBER) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(value)
    return value


def _share(value: Any) -> float:
    # One above by rounding, as a Dice of float32 may be.
    if type(value) not in (int, float) or not 0 <= value <= 1 + 1e-5:
        raise ValueError(value)
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(value)
    return value


def _numbers(value: Any) -> dict[str, int]:
    return {_text(name): whole(number) for name, number in value.items()}


def matching(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(_text(value)):
        raise ValueError(value)
    return str(value)
