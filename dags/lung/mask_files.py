"""Reads the masks of a run in S3 for their page: the sheet, a page of it, and its previews.

What these files hold may have been edited: every field is checked, and what is no file of the jobs
raises UnreadableError. No URI of theirs is followed: folders are below LUNG_BUCKET_URI.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from lung.contract import LARGEST_RUN
from lung.run_folder import safe_run_id
from lung.s3_files import MIB, S3Files, UnreadableError
from lung.settings import setting

# The largest size of each file in bytes, and of what is read of it at a time.
LARGEST_POINTER, LARGEST_SHEET, LARGEST_TABLE = MIB, 4 * MIB, 32 * MIB
LARGEST_PAGE, LARGEST_PREVIEW, LARGEST_RANGE = 4 * MIB, MIB // 4, 4 * MIB
FILMS_PER_PAGE = 200
# Films of a table that the page lists; it says where the table is.
ROWS_LISTED = 1000
# Ranges of a pack with fewer bytes between them are read as one.
GAP = 64 * 2**10
THREADS = 8
LARGEST_NUMBER = 2**53
# Parts of rows that are counted while predict runs; a set of a million films has 3907.
MOST_PARTS = 10_000
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
# Of a model and of its version, each a folder.
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PACK = re.compile(r"previews/[0-9a-f]{16}\.bin")
JPEG = b"\xff\xd8\xff"

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


@dataclass(frozen=True)
class Predictions:
    """The folder of predict: its URI; films and parts of rows are 0 where they are not known."""

    folder: str
    films: int = 0
    parts: int = 0


class MaskFiles:
    """The files of one run's masks; None where one does not exist."""

    def __init__(self, run_id: str) -> None:
        self._out = setting("LUNG_BUCKET_URI").rstrip("/")
        self.run = f"{self._out}/runs/{safe_run_id(run_id)}"
        self._files = S3Files()

    def predictions(self) -> Predictions | None:
        """Where this run's predict writes, or wrote; None before it has started."""
        pointer, uri = self._json("predict.json", LARGEST_POINTER)
        if pointer is not None:
            return _checked(lambda: self._pointer(pointer), uri, "predict")
        # Earlier versions have no pointer, and a published run names its manifests.
        pointer, uri = self._json("run.json", LARGEST_RUN)
        if pointer is None:
            return None
        return _checked(lambda: self._published(pointer), uri, "publish")

    def parts_written(self, predictions: Predictions) -> int:
        return self._files.count(f"{predictions.folder}/rows/part-", MOST_PARTS)

    def sheet(self, predictions: Predictions | None = None) -> Sheet | None:
        """The sheet of predict, or, without its predictions, of this run's inbox."""
        uri = f"{predictions.folder if predictions else self.run}/sheet.json"
        content = self._files.read_json(uri, LARGEST_SHEET)
        if content is None:
            return None
        masks = predictions.folder if predictions else ""
        return _checked(lambda: self._sheet(content, uri, masks), uri, "predict or inbox")

    def films(self, sheet: Sheet, page: int) -> list[Film]:
        """The films of a page, from 1, of which the sheet has `len(sheet.pages) - 1`."""
        start, stop = sheet.pages[page - 1 : page + 1]
        uri = sheet.uri.replace("/sheet.json", "/sheet.jsonl")
        data = self._files.read_range(uri, start, stop)
        lines = (data or b"").splitlines()
        if len(lines) != min(FILMS_PER_PAGE, sheet.films - (page - 1) * FILMS_PER_PAGE):
            raise UnreadableError(f"{uri} is not the one of {sheet.uri}")
        return _checked(
            lambda: [_film(json.loads(line)) for line in lines], uri, "predict or inbox"
        )

    def previews(self, sheet: Sheet, films: Sequence[Film]) -> list[bytes | None]:
        """Each film's preview, a JPEG; None where there is none, or no longer."""
        places = sorted({film.preview for film in films if film.preview})
        spans = list(_spans(places))

        def read(span: list[tuple[str, int, int]]) -> bytes:
            (key, start, _), (_, last, size) = span[0], span[-1]
            return self._files.read_range(f"{sheet.masks}/{key}", start, last + size) or b""

        found: dict[tuple[str, int, int], bytes] = {}
        with ThreadPoolExecutor(THREADS) as pool:
            for span, data in zip(spans, pool.map(read, spans), strict=True):
                for place in span:
                    start = place[1] - span[0][1]
                    found[place] = data[start : start + place[2]]
        of_films = (found.get(film.preview, b"") if film.preview else b"" for film in films)
        return [preview if preview.startswith(JPEG) else None for preview in of_films]

    def table(self, predictions: Predictions | None = None) -> Table | None:
        """The CSV of predict or of this run's inbox, which earlier versions wrote too."""
        of_predict = predictions and f"{predictions.folder}/predictions.csv"
        uri = of_predict or f"{self.run}/masks.csv"
        data = self._files.read(uri, LARGEST_TABLE)
        if data is None:
            return None
        return _checked(lambda: _table(data, uri), uri, "predict or inbox")

    def _json(self, name: str, limit: int) -> tuple[Any, str]:
        uri = f"{self.run}/{name}"
        return self._files.read_json(uri, limit), uri

    def _pointer(self, pointer: Any) -> Predictions:
        folder = self._folder(pointer["predictions"])
        return Predictions(folder, _whole(pointer["films"]), _whole(pointer["parts"]))

    def _published(self, run_json: Any) -> Predictions:
        manifest = run_json["inputs"]["predictions"]["uri"]
        return Predictions(self._folder(manifest.removesuffix("/manifest.json")))

    def _folder(self, uri: str) -> str:
        return f"{self._out}/predictions/{_matching(FINGERPRINT, uri.rpartition('/')[2])}"

    def _sheet(self, content: Any, uri: str, masks: str) -> Sheet:
        given = content["model"]
        model = {
            "name": _matching(FOLDER, given["name"]) if "name" in given else "",
            "version": _matching(FOLDER, given["version"]),
            "val_dice": _maybe(_share, given["val_dice"]),
        }
        sections = {
            name: _whole(content["sections"][name]) for name in ("review", "failed", "others")
        }
        pages = [_whole(place) for place in content["pages"]]
        lengths = [stop - start for start, stop in itertools.pairwise(pages)]
        if (
            content["films_per_page"] != FILMS_PER_PAGE
            or len(lengths) != -(-sum(sections.values()) // FILMS_PER_PAGE)
            or not all(0 < length <= LARGEST_PAGE for length in lengths)
        ):
            raise ValueError(pages)
        return Sheet(
            uri=uri,
            masks=masks or f"{self._out}/masks/{model['name']}/{model['version']}",
            run_id=_text(content["run_id"]),
            counts=_numbers(content["counts"]),
            sections=sections,
            model=model,
            skipped=_numbers(content["skipped"]),
            pages=pages,
        )


def _film(row: Any) -> Film:
    preview, size = row.get("preview"), row.get("height")
    return Film(
        name=_text(row["origin"]),
        is_masked=_text(row["status"]) == "ok",
        is_for_review=row.get("review", False) is True,
        reason=_text(row.get("reason", "")),
        size=None if size is None else (_whole(size), _whole(row["width"])),
        quality=_maybe(_share, row.get("quality")),
        lung_fraction=_maybe(_share, row.get("lung_fraction")),
        preview=_maybe(_place, preview),
    )


def _place(preview: Any) -> tuple[str, int, int]:
    key = _matching(PACK, preview["key"])
    return key, _whole(preview["offset"]), _whole(preview["bytes"], 1, LARGEST_PREVIEW)


def _spans(places: Sequence[tuple[str, int, int]]) -> Iterator[list[tuple[str, int, int]]]:
    """Neighbours in one pack, to be read as one range, of places in order."""
    span: list[tuple[str, int, int]] = []
    for place in places:
        key, start, size = place
        if span and (
            key != span[0][0]
            or start - sum(span[-1][1:]) > GAP
            or start + size - span[0][1] > LARGEST_RANGE
        ):
            yield span
            span = []
        span.append(place)
    if span:
        yield span


def _table(data: bytes, uri: str) -> Table:
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


# Checks, which raise ValueError


def _checked(read: Callable[[], T], uri: str, writer: str) -> T:
    try:
        return read()
    except (
        *(AttributeError, csv.Error, KeyError, OverflowError),
        *(RecursionError, TypeError, ValueError),
    ) as error:
        raise UnreadableError(f"{uri} was not written by {writer}") from error


def _maybe(check: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else check(value)


def _whole(value: Any, least: int = 0, most: int = LARGEST_NUMBER) -> int:
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
    return {_text(name): _whole(number) for name, number in value.items()}


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(_text(value)):
        raise ValueError(value)
    return str(value)
