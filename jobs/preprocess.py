"""preprocess: raw films and masks -> square 8-bit films, one mask each, and a split by patient."""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadDataError, ConfigError
from jobs.films.rows import (
    SPLITS,
    ProcessedRow,
    RawRow,
    Split,
    check_processed,
    film_of,
    raw_rows,
)
from jobs.films.split import read_split_file, split_of
from jobs.films.square import NO_MASK, SquareFilm, square_film
from jobs.imaging import decode, geometry, mask_values, masks
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

RECIPE = "5"
REPEATED = "repeated"
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
        check_row=check_processed,
    )
    if manifest := work_folder.finished():
        return manifest
    summary = _process_films(work_folder, raw, splits, config)
    return _complete(work_folder, summary, config)


def _process_films(
    work_folder: WorkFolder, raw: Manifest, splits: Mapping[str, Split], config: PreprocessConfig
) -> _Summary:
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
    summary = _Summary(total)
    for row in track(rows, total, "preprocess"):
        repeats.remember(row)
        summary.add(row)
    if (rows_read := summary.records + len(summary.quarantined)) != total:
        raise BadDataError(f"{raw.uri} counts {total} films and has {rows_read}: {REMEDY}")
    return summary


def _complete(work_folder: WorkFolder, summary: _Summary, config: PreprocessConfig) -> Manifest:
    """Check quarantine and splits, and write quarantine.csv, the contact sheet and the manifest."""
    lines = ({name: film[name] for name in QUARANTINE_COLUMNS} for film in summary.quarantined)
    work_folder.add_table("quarantine.csv", QUARANTINE_COLUMNS, lines)
    _check_quarantine(summary, config.max_quarantined, work_folder.uri_of("quarantine.csv"))
    _check_mask_values(summary, config.mask_values)
    summary.log()
    counts = summary.counts()
    _check_splits(counts)
    sheet = _contact_sheet(work_folder, summary.records)
    work_folder.add_file("contact_sheet.png", sheet, "image/png")
    return work_folder.finish(counts=counts, headline=counts, details=summary.details())


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


class _Summary:
    """Counts for the manifest, from the rows in order; keeps the quarantined rows alone."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.quarantined: list[dict[str, Any]] = []
        self._splits: Counter[str] = Counter()
        self._by_source: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._by_label: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._unlike_lungs: Counter[str] = Counter()
        self.mask_values: set[str] = set()

    def add(self, row: ProcessedRow) -> None:
        if row["status"] != "ok":
            self.quarantined.append(dict(row))
            return
        split = row["split"]
        self._splits[split] += 1
        self._by_source[row["source"]][split] += 1
        self._by_label[row["label"]][split] += 1
        if reason := row.get("unlike_lungs"):
            self._unlike_lungs[reason] += 1
        self.mask_values.update(row.get("mask_values", []))

    @property
    def records(self) -> int:
        return self._splits.total()

    def counts(self) -> dict[str, int]:
        counts = {
            "films": self.total,
            "records": self.records,
            "quarantined": len(self.quarantined),
        }
        return counts | {split: self._splits[split] for split in SPLITS}

    def reasons(self) -> Counter[str]:
        """Quarantined films by reason, without the details after the reason's colon."""
        return Counter(film["reason"].partition(":")[0] for film in self.quarantined)

    def details(self) -> dict[str, Any]:
        """Reasons of the quarantine, films of each source and label by split, and why masks look
        unlike lungs.
        """
        return {
            "reasons": dict(self.reasons().most_common()),
            "unlike_lungs": dict(self._unlike_lungs.most_common()),
            "by_source": _sorted_counts(self._by_source),
            "by_label": _sorted_counts(self._by_label),
        }

    def log(self) -> None:
        for name, groups in (("source", self._by_source), ("label", self._by_label)):
            for group, counts in _sorted_counts(groups).items():
                splits = ", ".join(f"{split} {count}" for split, count in counts.items())
                log.info("%s %s: %s", name, group, splits)
        for reason, count in self.reasons().most_common():
            log.info("quarantined: %s: %d", reason, count)
        for reason, count in self._unlike_lungs.most_common():
            log.warning("masks that look unlike lungs: %s: %d", reason, count)


def _sorted_counts(groups: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """{group: {split: films}}, groups and splits sorted."""
    return {group: dict(sorted(groups[group].items())) for group in sorted(groups)}


def _check_quarantine(summary: _Summary, limit: float, uri: str) -> None:
    """Raise BadDataError where over `limit` (0..1) of the films with a mask are quarantined.

    Public sets have films without a mask and films of other sets: these do not count.
    """
    unusable = summary.reasons()
    with_mask = summary.total - sum(unusable.pop(reason, 0) for reason in (NO_MASK, REPEATED))
    share = unusable.total() / with_mask if with_mask else 1.0
    if share > limit:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in unusable.most_common(3))
        raise BadDataError(
            f"{unusable.total()} of {with_mask} films with a mask are quarantined ({share:.0%}, "
            f"at most {limit:.0%} by --max-quarantined): {reasons or 'no film has a mask'}"
            f"{_remedy(summary)}: see {uri}"
        )


def _remedy(summary: _Summary) -> str:
    """What to do about masks whose values do not say which pixels are lung, "" without any."""
    reasons = [film["reason"] for film in summary.quarantined]
    inverted = [reason for reason in reasons if reason.startswith(mask_values.INVERTED)]
    unclear = [
        reason for reason in reasons if reason.startswith((mask_values.SEVERAL, mask_values.ABSENT))
    ]
    if unclear:
        names = sorted(
            {name for reason in unclear for name in mask_values.names_in(reason)}, key=_order
        )
        return (
            f"; the masks have the values {', '.join(names)}: name those that are lung, joined by "
            "commas, in --mask-values"
        )
    remedies = {reason.rpartition("; ")[2] for reason in inverted}
    if inverted and not summary.records:
        return f"; {' or '.join(sorted(remedies))}"
    return "; inverted masks among others: invert them" if inverted else ""


def _order(name: str) -> tuple[bool, int]:
    """Gray values by size, then colors."""
    return name.startswith("#"), int(name.removeprefix("#"), 16 if name.startswith("#") else 10)


def _check_mask_values(summary: _Summary, values: str) -> None:
    """Raise ConfigError where one of the values of --mask-values occurs in no mask."""
    names = [name_of(value) for value in mask_values.parse(values)]
    if missing := [name for name in names if name not in summary.mask_values]:
        raise ConfigError(
            f"--mask-values {values}: no mask has the value {missing[0]}, give only values that "
            "the masks have"
        )


def _check_splits(counts: Mapping[str, int]) -> None:
    if empty := [split for split in SPLITS if not counts[split]]:
        films = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        raise BadDataError(
            f"the split {empty[0]} is empty ({films}): give more patients or a --split-file"
        )


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
    return decode.encode_png(masks.contact_sheet(tiles, columns=SHEET_COLUMNS, tile=TILE_PIXELS))


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
