"""preprocess: raw films and masks -> square 8-bit films, one mask each, and a split by patient."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadDataError
from jobs.films import look_alikes
from jobs.films.look_alikes import LOOK_ALIKES_CSV
from jobs.films.processed_summary import (
    REPEATED,
    Summary,
    check_mask_values,
    check_quarantine,
    check_splits,
)
from jobs.films.rows import (
    ProcessedRow,
    RawRow,
    Split,
    check_preprocessed,
    film_of,
    raw_rows,
)
from jobs.films.split import read_split_file, split_of
from jobs.films.square import SquareFilm, square_film
from jobs.imaging import decode, encode, geometry, mask_values, masks
from jobs.imaging.geometry import Placing
from jobs.imaging.mask_levels import Value, name_of
from jobs.runtime.byte_budget import film_memory
from jobs.runtime.parallel import CPU_THREADS, ordered_map
from jobs.runtime.progress import track
from jobs.settings.config import PreprocessConfig
from jobs.storage.manifest import FileRow, Manifest, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from jobs.typed_json import REMEDY

log = logging.getLogger(__name__)

RECIPE = "6"
SHEET_FILMS, SHEET_COLUMNS, TILE_PIXELS = 24, 6, 256
QUARANTINE_COLUMNS = ["id", "patient", "source", "origin", "reason"]


def run(config: PreprocessConfig, store: Store) -> Manifest:
    """Write images/<id>.png and masks/<id>.png (uint8 and 1-bit, size x size) for every good film.

    A film that cannot be used is quarantined with its reason; none is dropped silently.
    Raises BadDataError where too many are, or where a split is empty; ConfigError where a value of
    --mask-values occurs in no mask.
    """
    raw = read_manifest(store, config.raw, "download")
    splits = read_split_file(store, config.split_file)
    work_folder = WorkFolder(
        store,
        config,
        job="preprocess",
        folder="processed",
        recipe=RECIPE,
        inputs={"raw": raw},
        extra={"splits": splits} if config.split_file else {},
        check_row=check_preprocessed,
    )
    if manifest := work_folder.finished():
        return manifest
    summary = _process_films(work_folder, raw, splits, config)
    return _complete(work_folder, summary, config)


def _process_films(
    work_folder: WorkFolder, raw: Manifest, splits: Mapping[str, Split], config: PreprocessConfig
) -> Summary:
    """Write the films, their masks and their rows; return what the manifest says of them."""
    placing = Placing(config.size, config.fit, config.crop_borders)
    named = mask_values.parse(config.mask_values)
    repeats = _Repeats(work_folder)
    total = raw.counts["films"]

    def process(row: RawRow) -> ProcessedRow:
        return _process(work_folder, raw, row, splits, placing, named)

    rows = work_folder.write_rows(
        raw_rows(work_folder.store, raw),
        total,
        process,
        threads=CPU_THREADS,
        finish_part=repeats.quarantine,
    )
    summary = Summary(total)
    for row in track(rows, total, "preprocess"):
        repeats.remember(row)
        summary.add(row)
    if (rows_read := summary.records + len(summary.quarantined)) != total:
        raise BadDataError(f"{raw.uri} counts {total} films and has {rows_read}: {REMEDY}")
    return summary


def _complete(work_folder: WorkFolder, summary: Summary, config: PreprocessConfig) -> Manifest:
    """Check quarantine and splits, and write quarantine.csv, the contact sheet and the manifest."""
    lines = ({name: film[name] for name in QUARANTINE_COLUMNS} for film in summary.quarantined)
    work_folder.add_table("quarantine.csv", QUARANTINE_COLUMNS, lines)
    check_quarantine(summary, config.max_quarantined, work_folder.uri_of("quarantine.csv"))
    check_mask_values(summary, config.mask_values)
    summary.log()
    counts = summary.counts()
    check_splits(counts)
    sheet = _contact_sheet(work_folder, summary.records)
    work_folder.add_file("contact_sheet.png", sheet, "image/png")
    pairs = summary.look_alikes.across_splits()
    work_folder.add_table(LOOK_ALIKES_CSV, look_alikes.COLUMNS, look_alikes.lines(pairs))
    look_alikes.warn(pairs, work_folder.uri_of(LOOK_ALIKES_CSV))
    return work_folder.finish(
        counts=counts, headline=counts, details=summary.details() | {"look_alikes": len(pairs)}
    )


def _process(
    work_folder: WorkFolder,
    raw: Manifest,
    row: RawRow,
    splits: Mapping[str, Split],
    placing: Placing,
    named: Sequence[Value],
) -> ProcessedRow:
    """The processed row of one film, its image and mask written; or its reason for quarantine."""

    def read(entry: FileRow) -> bytes:
        return work_folder.store.read(raw.uri_of(entry["key"]), sha256=entry["sha256"])

    try:
        square = square_film(row, read, placing, named)
    except decode.ImageError as error:
        return _quarantined(row, str(error))
    processed = _processed(work_folder, row, square, split_of(row["patient"], splits))
    if square.unlike_lungs:
        processed["unlike_lungs"] = square.unlike_lungs
    if named:
        processed["mask_values"] = [name_of(value) for value in square.named]
    return processed


def _processed(
    work_folder: WorkFolder, row: RawRow, square: SquareFilm, split: Split
) -> ProcessedRow:
    return cast(
        "ProcessedRow",
        {
            **film_of(row),
            "status": "ok",
            "split": split,
            "image": work_folder.put(f"images/{row['id']}.png", square.image, "image/png"),
            "mask": work_folder.put(f"masks/{row['id']}.png", square.mask, "image/png"),
            **square.placement.numbers(),
            "lung_fraction": round(square.lung_fraction, 6),
            "pixels": square.pixels,
            "looks": square.looks,
        },
    )


def _quarantined(row: RawRow | ProcessedRow, reason: str) -> ProcessedRow:
    return cast("ProcessedRow", {**film_of(row), "status": "quarantined", "reason": reason})


class _Repeats:
    """Films whose decoded pixels an earlier film has: the first is kept, from whatever source."""

    def __init__(self, work_folder: WorkFolder) -> None:
        self._work_folder = work_folder
        self._id_of_pixels: dict[str, str] = {}

    def quarantine(self, part: list[ProcessedRow]) -> list[ProcessedRow]:
        """A new part's rows, repeated films quarantined and their image and mask deleted.

        Parts come in order, after all rows of earlier parts were remembered.
        """
        repeated: list[ProcessedRow] = []
        rows: list[ProcessedRow] = []
        for row in part:
            self.remember(row)
            first = self._id_of_pixels[row["pixels"]] if row["status"] == "ok" else row["id"]
            if first == row["id"]:
                rows.append(row)
            else:
                repeated.append(row)
                rows.append(_quarantined(row, f"{REPEATED}: the same film as {first}"))
        files = itertools.chain.from_iterable((row["image"], row["mask"]) for row in repeated)
        self._work_folder.store.delete(self._work_folder.uri_of(file["key"]) for file in files)
        return rows

    def remember(self, row: ProcessedRow) -> None:
        """Note the row's pixels as its film's, unless an earlier film has them."""
        if row["status"] == "ok":
            self._id_of_pixels.setdefault(row["pixels"], row["id"])


def _contact_sheet(work_folder: WorkFolder, records: int) -> bytes:
    """SHEET_FILMS films spread evenly over the set, masks outlined, captioned with id and split."""
    numbers = {number * records // SHEET_FILMS for number in range(SHEET_FILMS)}
    rows = cast("Iterator[ProcessedRow]", work_folder.rows())
    good = (row for row in rows if row["status"] == "ok")
    sampled = [row for number, row in enumerate(good) if number in numbers]

    def tile(row: ProcessedRow) -> tuple[NDArray[np.uint8], str]:
        return _outlined(work_folder, row), f"{row['id']} · {row['split']}"

    tiles: Sequence[tuple[NDArray[np.uint8], str]] = list(
        ordered_map(tile, sampled, threads=work_folder.store.threads)
    )
    return encode.encode_png(masks.contact_sheet(tiles, columns=SHEET_COLUMNS, tile=TILE_PIXELS))


def _outlined(work_folder: WorkFolder, row: ProcessedRow) -> NDArray[np.uint8]:
    """The film with its mask's border, uint8 (TILE_PIXELS, TILE_PIXELS, 3).

    Drawn at the tile's scale, so that the line is equally thin on films of every size.
    """
    film, mask = (
        work_folder.store.read(work_folder.uri_of(entry["key"]))
        for entry in (row["image"], row["mask"])
    )
    with film_memory(decode.working_bytes(film) + decode.working_bytes(mask)):
        small_film = geometry.resize_film(decode.decode_film(film), TILE_PIXELS, TILE_PIXELS)
        small_mask = geometry.resize_mask(decode.decode_mask(mask), TILE_PIXELS, TILE_PIXELS)
    return masks.outline(small_film, [(small_mask, masks.TRUTH_COLOR)], 1)
