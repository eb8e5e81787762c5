"""Reads the masks of a run in S3 for their page: the sheet, a page of it, and its previews.

What these files hold may have been edited: every field is checked, and what is no file of the jobs
raises UnreadableError. No URI of theirs is followed: folders are below LUNG_BUCKET_URI.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from lung.contract import LARGEST_RUN
from lung.mask_sheet import (
    FILMS_PER_PAGE,
    WRONG,
    Film,
    Sheet,
    Table,
    film_of,
    matching,
    sheet_of,
    table_of,
    whole,
)
from lung.run_folder import safe_run_id
from lung.s3_files import MIB, S3Files, UnreadableError
from lung.settings import setting

# The largest size of each file in bytes, and of what is read of it at a time.
LARGEST_POINTER, LARGEST_SHEET, LARGEST_TABLE = MIB, 4 * MIB, 32 * MIB
LARGEST_RANGE = 4 * MIB
# Ranges of a pack with fewer bytes between them are read as one.
GAP = 64 * 2**10
THREADS = 8
# Parts of rows that are counted while predict runs; a set of a million films has 3907.
MOST_PARTS = 10_000
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
JPEG = b"\xff\xd8\xff"

T = TypeVar("T")


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
        return _checked(lambda: sheet_of(content, uri, masks, self._out), uri, "predict or inbox")

    def films(self, sheet: Sheet, page: int) -> list[Film]:
        """The films of a page, from 1, of which the sheet has `len(sheet.pages) - 1`."""
        start, stop = sheet.pages[page - 1 : page + 1]
        uri = sheet.uri.replace("/sheet.json", "/sheet.jsonl")
        data = self._files.read_range(uri, start, stop)
        lines = (data or b"").splitlines()
        if len(lines) != min(FILMS_PER_PAGE, sheet.films - (page - 1) * FILMS_PER_PAGE):
            raise UnreadableError(f"{uri} is not the one of {sheet.uri}")
        return _checked(
            lambda: [film_of(json.loads(line)) for line in lines], uri, "predict or inbox"
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
        return _checked(lambda: table_of(data, uri), uri, "predict or inbox")

    def _json(self, name: str, limit: int) -> tuple[Any, str]:
        uri = f"{self.run}/{name}"
        return self._files.read_json(uri, limit), uri

    def _pointer(self, pointer: Any) -> Predictions:
        folder = self._folder(pointer["predictions"])
        return Predictions(folder, whole(pointer["films"]), whole(pointer["parts"]))

    def _published(self, run_json: Any) -> Predictions:
        manifest = run_json["inputs"]["predictions"]["uri"]
        return Predictions(self._folder(manifest.removesuffix("/manifest.json")))

    def _folder(self, uri: str) -> str:
        return f"{self._out}/predictions/{matching(FINGERPRINT, uri.rpartition('/')[2])}"


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


def _checked(read: Callable[[], T], uri: str, writer: str) -> T:
    try:
        return read()
    except WRONG as error:
        raise UnreadableError(f"{uri} was not written by {writer}") from error
