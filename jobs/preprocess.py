"""preprocess: raw films and masks -> square 8-bit films, one mask each, and a split by patient."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadDataError, ConfigError
from jobs.films.square import NO_MASK, Entry, Place, square_film
from jobs.imaging import decode, geometry, masks
from jobs.runtime.parallel import CPU_THREADS, ordered_map
from jobs.runtime.progress import track
from jobs.settings.config import PreprocessConfig
from jobs.sources.lookup_table import parse_lookup
from jobs.storage.manifest import Manifest, Row, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)

RECIPE = "3"
REPEATED = "repeated"
SPLITS = ("train", "val", "test")
SPLIT_SALT = "lung-segmentation-20"  # gives even 12 phantoms a film for each split
TEST_BELOW, VAL_BELOW = 0.15, 0.30
CONTACT_SHEET_FILMS, CONTACT_SHEET_COLUMNS, CONTACT_SHEET_TILE = 24, 6, 256
TILE_SHAPE = (CONTACT_SHEET_TILE, CONTACT_SHEET_TILE)
QUARANTINE_COLUMNS = ("id", "patient", "source", "origin", "reason")
GROUPS = ("split", "source", "label")


def run(config: PreprocessConfig, store: Store) -> Manifest:
    """Write images/<id>.png and masks/<id>.png (uint8 and 1-bit, size x size) for every good film.

    A film that cannot be used is quarantined with its reason; none is dropped silently.
    Raises BadDataError where too many are, or where a split is empty.
    """
    raw = read_manifest(store, config.raw, "download")
    splits = _read_split_file(store, config.split_file)
    extra = {"splits": splits} if config.split_file else {}
    stage = WorkFolder(
        store,
        config,
        job="preprocess",
        folder="processed",
        recipe=RECIPE,
        inputs={"raw": raw},
        extra=extra,
    )
    if found := stage.finished():
        return found
    total = raw.counts["films"]
    admit = _DuplicateCheck(stage)

    place = functools.partial(
        geometry.place, size=config.size, fit=config.fit, crop_borders=config.crop_borders
    )

    def work(row: Row) -> Row:
        return _process(stage, raw, row, splits, place)

    rows = stage.write_rows(
        raw.rows(store),
        total,
        work,
        threads=CPU_THREADS,
        finish_part=lambda part: [admit(row) for row in part],
    )
    summary = _Summary(total)
    for row in track(rows, total, "preprocess"):
        admit.note(row)
        summary.add(row)
    counts = summary.counts()
    assert counts["records"] + counts["quarantined"] == total, "a film was lost"
    reasons = ({name: row[name] for name in QUARANTINE_COLUMNS} for row in summary.quarantined)
    stage.add_table("quarantine.csv", QUARANTINE_COLUMNS, reasons)
    _check_quarantine(summary, config.max_quarantined, stage.uri_of("quarantine.csv"))
    details = summary.details()
    _check_splits(counts)
    stage.add_file("contact_sheet.png", _contact_sheet(stage, summary.records), "image/png")
    return stage.finish(counts=counts, headline=counts, details=details)


def split_of(patient: str) -> str:
    """train, val or test: a pure function of the patient, so that adding films moves nobody.

    The first 8 bytes of sha256(salt + patient) as a fraction in [0, 1): test below 0.15,
    validation below 0.30, train above.
    """
    digest = hashlib.sha256((SPLIT_SALT + patient).encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if fraction < TEST_BELOW else "val" if fraction < VAL_BELOW else "train"


def _process(
    stage: WorkFolder, raw: Manifest, row: Row, splits: Mapping[str, str], place: Place
) -> Row:
    def read(entry: Entry) -> bytes:
        return stage.store.read(raw.uri_of(entry["key"]), sha256=entry["sha256"])

    about = {name: row[name] for name in ("id", "patient", "source", "label", "origin")}
    try:
        made = square_film(row, read, place)
    except decode.ImageError as error:
        return about | {"status": "quarantined", "reason": str(error)}
    return about | {
        "status": "ok",
        "split": _split(row["patient"], splits),
        "image": stage.put(f"images/{row['id']}.png", made.image, "image/png"),
        "mask": stage.put(f"masks/{row['id']}.png", made.mask, "image/png"),
        **made.placement.numbers(),
        "lung_fraction": round(made.lung_fraction, 6),
        "pixels": made.pixels,
    }


def _split(patient: str, splits: Mapping[str, str]) -> str:
    if splits and patient not in splits:
        raise BadDataError(
            f"the split file names no split for patient {patient!r}: add the line "
            f"'{patient},train' (or val, or test)"
        )
    return splits[patient] if splits else split_of(patient)


class _DuplicateCheck:
    """Quarantines a film whose decoded pixels an earlier film has, whatever source it came from.

    Called on new rows in order; `note` is called on every row, also those of an earlier try.
    """

    def __init__(self, stage: WorkFolder) -> None:
        self._stage = stage
        self._first: dict[str, str] = {}

    def __call__(self, row: Row) -> Row:
        if row["status"] != "ok":
            return row
        first = self._first.setdefault(row["pixels"], row["id"])
        if first == row["id"]:
            return row
        self._stage.store.delete(self._stage.uri_of(row[kind]["key"]) for kind in ("image", "mask"))
        kept = {name: row[name] for name in ("id", "patient", "source", "label", "origin")}
        return kept | {"status": "quarantined", "reason": f"{REPEATED}: the same film as {first}"}

    def note(self, row: Row) -> Row:
        if row["status"] == "ok":
            self._first.setdefault(row["pixels"], row["id"])
        return row


class _Summary:
    """What is said of the films, gathered from the rows as they pass; keeps few of them."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.quarantined: list[Row] = []
        self._groups: dict[str, Counter[str]] = {name: Counter() for name in GROUPS}

    def add(self, row: Row) -> None:
        if row["status"] != "ok":
            self.quarantined.append(row)
            return
        for name, counter in self._groups.items():
            counter[row["split"] if name == "split" else f"{row[name]}/{row['split']}"] += 1

    @property
    def records(self) -> int:
        return self._groups["split"].total()

    def counts(self) -> dict[str, int]:
        counts = {
            "films": self.total,
            "records": self.records,
            "quarantined": len(self.quarantined),
        }
        return counts | {split: self._groups["split"][split] for split in SPLITS}

    def reasons(self) -> Counter[str]:
        """Films by reason, without the figures that are each film's own."""
        return Counter(row["reason"].partition(":")[0] for row in self.quarantined)

    def details(self) -> dict[str, Any]:
        """For the report; the achieved counts are logged too."""
        for name in ("source", "label"):
            found = sorted(self._groups[name].items())
            log.info("%s: %s", name, ", ".join(f"{key} {count}" for key, count in found))
        for reason, count in self.reasons().most_common():
            log.info("quarantined: %s: %d", reason, count)
        return {
            "reasons": dict(self.reasons().most_common()),
            "by_source": dict(sorted(self._groups["source"].items())),
            "by_label": dict(sorted(self._groups["label"].items())),
        }


def _check_quarantine(summary: _Summary, limit: float, uri: str) -> None:
    """Films without a mask, and in two sets, are expected of the public ones and not held against
    them."""
    unusable = summary.reasons()
    with_mask = summary.total - sum(unusable.pop(reason, 0) for reason in (NO_MASK, REPEATED))
    share = unusable.total() / with_mask if with_mask else 1.0
    if share > limit:
        why = ", ".join(f"{reason} ({count})" for reason, count in unusable.most_common(3))
        raise BadDataError(
            f"{unusable.total()} of {with_mask} films with a mask are quarantined ({share:.0%}, "
            f"at most {limit:.0%} by --max-quarantined): {why or 'no film has a mask'}: see {uri}"
        )


def _check_splits(counts: Mapping[str, int]) -> None:
    if empty := [split for split in SPLITS if not counts[split]]:
        achieved = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        raise BadDataError(
            f"the split {empty[0]} is empty ({achieved}): give more patients or a --split-file"
        )


def _contact_sheet(stage: WorkFolder, records: int) -> bytes:
    """24 films spread evenly over the set, their masks outlined, captioned with id and split."""
    chosen = {number * records // CONTACT_SHEET_FILMS for number in range(CONTACT_SHEET_FILMS)}
    good = (row for row in stage.rows() if row["status"] == "ok")
    rows = [row for number, row in enumerate(good) if number in chosen]

    def tile(row: Row) -> tuple[NDArray[np.uint8], str]:
        film = decode.decode_film(stage.store.read(stage.uri_of(row["image"]["key"])))
        mask = decode.decode_mask(stage.store.read(stage.uri_of(row["mask"]["key"])))
        # At the sheet's own scale, so that the line is as thin on a small film as on a large one.
        film = geometry.resize_film(film, *TILE_SHAPE)
        mask = geometry.resize_mask(mask, *TILE_SHAPE)
        return masks.outline(film, [(mask, masks.TRUTH_COLOR)], 1), f"{row['id']} · {row['split']}"

    tiles = list(ordered_map(tile, rows, threads=stage.store.threads))
    sheet = masks.contact_sheet(tiles, columns=CONTACT_SHEET_COLUMNS, tile=CONTACT_SHEET_TILE)
    return decode.encode_png(sheet)


def _read_split_file(store: Store, uri: str) -> dict[str, str]:
    """{patient: split} from a CSV with the columns patient,split; {} where no file is given.

    Raises ConfigError where it does not give each patient one of the splits, and each split one.
    """
    if not uri:
        return {}
    splits = parse_lookup(store.read(uri), uri, "patient", "split")
    names = ", ".join(SPLITS)
    for patient, split in splits.items():
        if split not in SPLITS:
            raise ConfigError(f"{uri} gives {patient!r} the split {split!r}: give one of {names}")
    if empty := [split for split in SPLITS if split not in splits.values()]:
        raise ConfigError(
            f"{uri} puts no patient into the split {empty[0]!r}: give each of {names} at least one"
        )
    return splits
