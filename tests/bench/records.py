"""The films of a source, prepared by the jobs download and preprocess, by split or by fold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs import download, preprocess
from jobs.films.rows import SPLITS, processed_rows
from jobs.films.training_pairs import read_pairs
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.bench.runs import Pair, Pixels, write_split

OUT = f"s3://{BUCKET}/bench"
FOLD_SALT, VAL_SALT = "folds", "folds-val"
# The share of the training folds' patients that is used for validation.
VAL_SHARE = 0.1


@dataclass(frozen=True)
class Records:
    """N films with their masks and metadata.

    Attributes:
        content: the content hash of the processed manifest.
        groups: for each film its source, such as montgomery, and its top folder in the source.
        images: uint8 (N, S, S).
        masks: uint8 (N, S, S), 0 or 1.
    """

    content: str
    ids: list[str]
    patients: list[str]
    groups: list[str]
    splits: list[str]
    images: Pixels
    masks: Pixels

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, indices: NDArray[np.int64]) -> Pair:
        """(images, masks) of the films at `indices`."""
        return self.images[indices], self.masks[indices]

    def write(self, folder: Path, split_of: Callable[[int], str]) -> None:
        """Write the films of each split for a run; `split_of` maps a film's index to its split."""
        for split, indices in members(len(self), split_of).items():
            write_split(folder, split, self.part(indices))


def members(count: int, split_of: Callable[[int], str]) -> dict[str, NDArray[np.int64]]:
    """The indices of the films in each split. Raises SystemExit if a split is empty."""
    splits = np.array([split_of(index) for index in range(count)])
    by_split: dict[str, NDArray[np.int64]] = {
        split: np.flatnonzero(splits == split) for split in SPLITS
    }
    if empty := [split for split, indices in by_split.items() if not len(indices)]:
        raise SystemExit(f"{count} films leave the split {empty[0]} empty: give more in SOURCE")
    return by_split


def fold_split(patient: str, fold: int, folds: int) -> str:
    """The patient's split in one of `folds` folds: test, val or train.

    A pure function of the patient's id, so that adding films moves no patient.
    """
    if int(_fraction(FOLD_SALT + patient) * folds) == fold:
        return "test"
    return "val" if _fraction(VAL_SALT + patient) < VAL_SHARE else "train"


def _fraction(text: str) -> float:
    """The first 8 bytes of a sha256 as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def read_records(source: str, size: int, folder: Path) -> Records:
    """The films of `source` at `size` x `size` pixels; `folder` holds the S3 server's objects."""
    with embedded_s3(folder) as settings:
        store = Store(settings)
        raw = download.run(DownloadConfig(source=source, out=OUT), store)
        processed = preprocess.run(PreprocessConfig(raw=raw.uri, size=size, out=OUT), store)
        return _load(store, processed)


def _load(store: Store, processed: Manifest) -> Records:
    rows = [row for row in processed_rows(store, processed) if row["status"] == "ok"]
    rows.sort(key=lambda row: SPLITS.index(row["split"]))
    pairs = [
        pair
        for split in SPLITS
        for pair in read_pairs(store, processed, split, threads=store.threads)
    ]
    return Records(
        content=processed.content_hash,
        ids=[row["id"] for row in rows],
        patients=[row["patient"] for row in rows],
        groups=[f"{row['source']} in {row['origin'].partition('/')[0]}" for row in rows],
        splits=[row["split"] for row in rows],
        images=np.stack([image for image, _ in pairs]),
        masks=np.stack([mask for _, mask in pairs]).astype(np.uint8),
    )
