"""The films of a source, read by the project's own jobs, and their parts by split or by fold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs import download, preprocess
from jobs.films.training_pairs import read_pairs
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.bench.runs import SPLITS, Pair, Pixels, write_split

OUT = f"s3://{BUCKET}/bench"
FOLD_SALT, VAL_SALT = "folds", "folds-val"
VAL_SHARE = 0.1  # of the patients of the training folds


@dataclass(frozen=True)
class Records:
    """N films with their masks: images and masks uint8 (N, S, S), and what is known of each.

    content: the hash of what the job preprocess wrote.
    groups: the source as the jobs know it, and the top folder that the film came in.
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

    def part(self, chosen: NDArray[np.int64]) -> Pair:
        """(images, masks) of the films at `chosen`."""
        return self.images[chosen], self.masks[chosen]

    def write(self, folder: Path, split_of: Callable[[int], str]) -> None:
        """Put each film where `split_of` its index says, for a run to read."""
        for split, chosen in members(len(self), split_of).items():
            write_split(folder, split, self.part(chosen))


def members(count: int, split_of: Callable[[int], str]) -> dict[str, NDArray[np.int64]]:
    """The indices of each split. Raises SystemExit where one is empty."""
    splits = np.array([split_of(index) for index in range(count)])
    found = {split: np.flatnonzero(splits == split) for split in SPLITS}
    if empty := [split for split, chosen in found.items() if not len(chosen)]:
        raise SystemExit(f"{count} films leave the split {empty[0]} empty: give more in SOURCE")
    return found


def fold_split(patient: str, fold: int, folds: int) -> str:
    """test, val or train in one of `folds` folds; a pure function of the patient's id."""
    if int(_fraction(FOLD_SALT + patient) * folds) == fold:
        return "test"
    return "val" if _fraction(VAL_SALT + patient) < VAL_SHARE else "train"


def _fraction(text: str) -> float:
    """The first 8 bytes of a sha256 as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def read_records(source: str, size: int, folder: Path) -> Records:
    """The films of `source` at `size` pixels; `folder` keeps the S3 server's objects."""
    with embedded_s3(folder) as settings:
        store = Store(settings)
        raw = download.run(DownloadConfig(source=source, out=OUT), store)
        processed = preprocess.run(PreprocessConfig(raw=raw.uri, size=size, out=OUT), store)
        return _load(store, processed)


def _load(store: Store, processed: Manifest) -> Records:
    rows = [row for row in processed.rows(store) if row["status"] == "ok"]
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
