"""One film's row in each job's manifest: what stands in rows/part-*.jsonl.gz, a JSON line a film.

All keys that may be absent are marked; the status says which are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NotRequired, TypedDict, cast

from jobs.storage.manifest import FileRow, Manifest
from jobs.storage.s3 import Store

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


class FilmRow(TypedDict):
    """What download says of a film and every later row of a film with a mask repeats.

    id: unique in its set, safe as a file name. patient: all films of one go to one split.
    source: montgomery, shenzhen, phantoms or custom. label: normal, abnormal or unknown.
    origin: the film's path in its source.
    """

    id: str
    patient: str
    source: str
    label: str
    origin: str


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
    height: NotRequired[int]
    width: NotRequired[int]
    crop: NotRequired[list[int]]
    box: NotRequired[list[int]]
    lung_fraction: NotRequired[float]
    pixels: NotRequired[str]
    unlike_lungs: NotRequired[str]
    mask_values: NotRequired[list[str]]


class PredictionRow(TypedDict):
    """predict and inbox: the mask where the status is ok, else the reason.

    height, width: the film's own, in pixels. lung_fraction, quality: 0..1.
    review: whether a person should look at the mask. missing: gone before it was read.
    """

    id: str
    origin: str
    status: Literal["ok", "failed", "missing"]
    reason: NotRequired[str]
    mask: NotRequired[FileRow]
    height: NotRequired[int]
    width: NotRequired[int]
    lung_fraction: NotRequired[float]
    quality: NotRequired[float]
    review: NotRequired[bool]


class InboxRow(PredictionRow):
    """inbox: the film as it was listed, and the run that masked it."""

    uri: str
    etag: str
    run_id: str


class ScoredRow(TypedDict):
    """evaluate: the scores of a film with a truth (status ok), else the reason it was skipped.

    split: what the film was to the network. tested: whether it counts in the test figures.
    dice, iou, quality: 0..1. hd95: percent of the film's diagonal, 0..100.
    """

    id: str
    status: Literal["ok", "skipped"]
    reason: NotRequired[str]
    patient: NotRequired[str]
    source: NotRequired[str]
    label: NotRequired[str]
    origin: NotRequired[str]
    split: NotRequired[Split]
    tested: NotRequired[bool]
    dice: NotRequired[float]
    iou: NotRequired[float]
    hd95: NotRequired[float]
    quality: NotRequired[float]
    review: NotRequired[bool]


def raw_rows(store: Store, raw: Manifest) -> Iterator[RawRow]:
    return cast("Iterator[RawRow]", raw.rows(store))


def processed_rows(store: Store, processed: Manifest) -> Iterator[ProcessedRow]:
    return cast("Iterator[ProcessedRow]", processed.rows(store))


def prediction_rows(store: Store, predictions: Manifest) -> Iterator[PredictionRow]:
    return cast("Iterator[PredictionRow]", predictions.rows(store))


def scored_rows(store: Store, evaluation: Manifest) -> Iterator[ScoredRow]:
    return cast("Iterator[ScoredRow]", evaluation.rows(store))


def film_of(row: FilmRow) -> dict[str, Any]:
    """The part of a row that later rows of the same film repeat."""
    return {name: cast("dict[str, Any]", row)[name] for name in FilmRow.__annotations__}
