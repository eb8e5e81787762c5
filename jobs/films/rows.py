"""One film's row in each job's manifest: what stands in rows/part-*.jsonl.gz, a JSON line a film.

All keys that may be absent are marked; the status says which are there. Rows are checked when they
are read: somebody may have edited them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from jobs import typed_json
from jobs.errors import BadDataError
from jobs.storage.manifest import FileRow, Manifest
from jobs.storage.s3 import Store
from jobs.typed_json import Count, Fraction, Key, Name, Range, Sha256, Text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

# What predictions.csv and masks.csv say of a mask, after the film's id and name.
MASK_COLUMNS = [
    "status",
    "height",
    "width",
    "lung_fraction",
    "quality",
    "review",
    "mask",
    "reason",
]


Line = Annotated[str, Text(r"[^\x00-\x1f\x7f]+", "a text of one line")]
# A file's name, and a patient's that is read from it, may hold control characters.
FromName = Annotated[str, Text(r"[\s\S]+", "a text")]
ListedUri = Annotated[str, Text(r"s3://[^/]+/[\s\S]+", "s3://BUCKET/KEY")]
Side = Annotated[int, Range(1, 2**20)]
PerceptualHash = Annotated[str, Text("[0-9a-f]{64}", "64 hex digits")]


class FilmRow(TypedDict):
    """What download says of a film and every later row of a film with a mask repeats.

    id: unique in its set, safe as a file name. patient: all films of one go to one split.
    source: montgomery, shenzhen, phantoms or custom. label: normal, abnormal or unknown.
    origin: the film's path in its source.
    """

    id: Name
    patient: FromName
    source: Line
    label: Line
    origin: FromName


class RawRow(FilmRow):
    """download: the film's file and those of its masks, by side: left, right or lungs."""

    film: FileRow
    masks: dict[str, FileRow]


class ProcessedRow(FilmRow):
    """preprocess: image and mask in the square where the status is ok, else the reason.

    crop and box: [top, left, bottom, right] of `Placement`, in pixels of the film and the square.
    lung_fraction: 0..1 of the whole film. pixels: sha256 (hex) of the film's decoded pixels.
    unlike_lungs: why the mask looks unlike lungs, where it does.
    mask_values: those of --mask-values that the film's masks have, where the flag is given.
    """

    status: Literal["ok", "quarantined"]
    reason: NotRequired[str]
    split: NotRequired[Split]
    image: NotRequired[FileRow]
    mask: NotRequired[FileRow]
    height: NotRequired[Side]
    width: NotRequired[Side]
    crop: NotRequired[list[Count]]
    box: NotRequired[list[Count]]
    lung_fraction: NotRequired[Fraction]
    pixels: NotRequired[Sha256]
    looks: NotRequired[PerceptualHash]
    unlike_lungs: NotRequired[str]
    mask_values: NotRequired[list[str]]


class PreviewRow(TypedDict):
    """Where a film's preview lies: bytes of the object `key`, relative to the masks' folder."""

    key: Key
    offset: Count
    bytes: Count


class PredictionRow(TypedDict):
    """predict and inbox: the mask where the status is ok, else the reason.

    height, width: the film's own, in pixels. lung_fraction, quality: 0..1.
    review: whether a person should look at the mask, for the reason. missing: gone before it was
    read. preview: earlier versions drew none.
    """

    id: Name
    origin: FromName
    status: Literal["ok", "failed", "missing"]
    reason: NotRequired[str]
    mask: NotRequired[FileRow]
    height: NotRequired[Side]
    width: NotRequired[Side]
    lung_fraction: NotRequired[Fraction]
    quality: NotRequired[Fraction]
    review: NotRequired[bool]
    preview: NotRequired[PreviewRow]


class InboxRow(PredictionRow):
    """inbox: the film as it was listed, and the run that masked it."""

    uri: ListedUri
    etag: Line
    run_id: Name


class ScoredRow(TypedDict):
    """evaluate: the scores of a film with a truth (status ok), else the reason it was skipped.

    split: what the film was to the network. tested: whether it counts in the test figures.
    dice, iou, quality: 0..1. hd95: percent of the film's diagonal, 0..100.
    """

    id: Name
    status: Literal["ok", "skipped"]
    reason: NotRequired[str]
    patient: NotRequired[FromName]
    source: NotRequired[Line]
    label: NotRequired[Line]
    origin: NotRequired[FromName]
    split: NotRequired[Split]
    tested: NotRequired[bool]
    dice: NotRequired[Fraction]
    iou: NotRequired[Fraction]
    hd95: NotRequired[Annotated[float, Range(0, 100)]]
    quality: NotRequired[Fraction]
    review: NotRequired[bool]


# The keys of a row by its status, beside those that are always there.
PROCESSED = {
    "ok": ("split", "image", "mask", "height", "width", "crop", "box"),
    "quarantined": ("reason",),
}
PREDICTED = {
    "ok": ("mask", "height", "width", "lung_fraction", "quality", "review"),
    "failed": ("reason",),
}
SCORED = {
    "ok": ("patient", "source", "label", "origin", "split", "tested", "dice", "iou", "hd95"),
    "skipped": ("reason",),
}

Row = Mapping[str, Any]
Keys = Mapping[str, tuple[str, ...]]


def raw_rows(store: Store, raw: Manifest) -> Iterator[RawRow]:
    return cast("Iterator[RawRow]", _read(store, raw, check_raw))


def processed_rows(store: Store, processed: Manifest) -> Iterator[ProcessedRow]:
    size: int = processed.config["size"]

    def check(row: Row, name: str) -> None:
        check_processed(row, name)
        if row["status"] == "ok" and not max(row["box"][2:]) <= size:
            raise BadDataError(_changed(f"{name}: the box {row['box']} is outside of {size}"))

    return cast("Iterator[ProcessedRow]", _read(store, processed, check))


def prediction_rows(store: Store, predictions: Manifest) -> Iterator[PredictionRow]:
    return cast("Iterator[PredictionRow]", _read(store, predictions, check_predicted))


def scored_rows(store: Store, evaluation: Manifest) -> Iterator[ScoredRow]:
    return cast("Iterator[ScoredRow]", _read(store, evaluation, check_scored))


def check_raw(row: Row, name: str) -> None:
    """Raise BadDataError, naming `name`, where the row is not a `RawRow`."""
    typed_json.check(row, RawRow, name)


def check_processed(row: Row, name: str) -> None:
    _check(row, ProcessedRow, PROCESSED, name)
    if row["status"] == "ok":
        for part, (height, width) in (
            ("crop", (row["height"], row["width"])),
            ("box", (2048,) * 2),
        ):
            top, left, bottom, right = row[part] if len(row[part]) == 4 else (0, 0, 0, 0)
            if not (top < bottom <= height and left < right <= width):
                raise BadDataError(
                    _changed(f"{name}: {part} is {row[part]}, not [top, left, bottom, right]")
                )


def check_preprocessed(row: Row, name: str) -> None:
    """As `check_processed`, of a row of this version, which has all that preprocess writes."""
    check_processed(row, name)
    _check(row, ProcessedRow, {"ok": ("lung_fraction", "pixels", "looks")}, name)


def check_predicted(row: Row, name: str) -> None:
    _check(row, PredictionRow, PREDICTED, name)


def check_inbox(row: Row, name: str) -> None:
    # Ledgers of earlier versions lack the quality score.
    _check(row, InboxRow, {"ok": ("mask",), "failed": ("reason",)}, name)


def check_scored(row: Row, name: str) -> None:
    _check(row, ScoredRow, SCORED, name)


def in_step(*rows: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of the same film in several manifests; BadDataError where the films differ."""
    for group in zip_longest(*rows):
        ids = {row and row["id"] for row in group}
        if len(ids) > 1:
            films = " and ".join(sorted(str(film or "none") for film in ids))
            raise BadDataError(
                f"the manifests have rows of different films, {films}: one was edited or damaged, "
                "run the jobs again with --force"
            )
        yield group


def _check(row: Row, form: Any, keys: Keys, name: str) -> None:
    typed_json.check(row, form, name)
    for key in keys.get(row["status"], ()):
        if key not in row:
            raise BadDataError(
                _changed(f"{name}: {key} of a film that is {row['status']} is missing")
            )


def _read(
    store: Store, manifest: Manifest, check: Callable[[Row, str], None]
) -> Iterator[dict[str, Any]]:
    """The manifest's rows, each checked; as many as it counts, each of another film."""
    films = manifest.counts.get("films")
    # Hashes, since a million ids take more memory.
    seen: set[int] = set()
    for row in manifest.rows(store):
        check(row, f"{manifest.uri}: row {len(seen) + 1}")
        if (film := hash(row["id"])) in seen:
            raise BadDataError(_changed(f"{manifest.uri} has two rows of {row['id']}"))
        seen.add(film)
        if films is not None and len(seen) > films:
            raise BadDataError(_changed(f"{manifest.uri} counts {films} films and has more rows"))
        yield row
    if films is not None and films != len(seen):
        raise BadDataError(
            _changed(f"{manifest.uri} counts {films} films and has {len(seen)} rows")
        )


def _changed(problem: str) -> str:
    return f"{problem}: {typed_json.REMEDY}"


def film_of(row: FilmRow) -> dict[str, Any]:
    """The part of a row that later rows of the same film repeat."""
    return {name: cast("dict[str, Any]", row)[name] for name in FilmRow.__annotations__}
