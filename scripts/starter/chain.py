"""The jobs that make the starter model: films to S3, squares, trainings, scores by folds."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jobs.chain import run_job
from jobs.films.rows import ProcessedRow, RawRow, ScoredRow, processed_rows, raw_rows
from jobs.imaging.perceptual_hash import HASH_BYTES
from jobs.settings.config import build_config
from jobs.storage.local_server import BUCKET
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store

OUT = f"s3://{BUCKET}/starter"
ARCHIVES = (
    "kermany-as-montgomery.zip",
    "kermany-as-masks-and-labels.zip",
    "starter-films.zip",
)
# Of starter-films.zip, whose adults have several films; other names are of a film each.
PATIENTS = r"^((?:child|adult)\d+)_"
FOLDS = 5
FOLD_SALT, VAL_SALT = "starter-fold", "starter-val"
# The share of the patients that the epoch and the threshold are chosen on.
VAL_SHARE = 0.08
PHANTOMS = "phantoms"


@dataclass(frozen=True)
class Recipe:
    """What the model is trained with; all else has the defaults of the jobs."""

    phantoms: int = 120
    size: int = 256
    network: str = "base"
    training: Mapping[str, Any] = field(
        default_factory=lambda: {"epochs": 48, "batch_size": 8, "seed": 0, "precision": "auto"}
    )

    def source(self, films: Path) -> str:
        archives = [(films / name).resolve().as_uri() for name in ARCHIVES]
        return "+".join([*archives, f"synthetic://phantoms?films={self.phantoms}&seed=0"])


@dataclass(frozen=True)
class Chain:
    """The chain on one source, once for each way to split its patients.

    Attributes:
        raw: the manifest of all films.
    """

    store: Store
    recipe: Recipe
    raw: Manifest

    @staticmethod
    def of(store: Store, recipe: Recipe, films: Path) -> Chain:
        raw = _run(store, "download", source=recipe.source(films), patient_pattern=PATIENTS)
        return Chain(store, recipe, raw)

    def preprocess(self, fold: int | None) -> Manifest:
        """The squares, split for a fold, or without test films."""
        splits = {row["patient"]: split_of(row, fold) for row in self.rows()}
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("patient", "split"), *splits.items()])
        uri = f"{OUT}/splits/{fold}.csv"
        self.store.write(uri, text.getvalue().encode())
        return self.run("preprocess", raw=self.raw.uri, size=self.recipe.size, split_file=uri)

    def train(self, processed: Manifest, **changes: Any) -> Manifest:
        settings = {"network": self.recipe.network, **self.recipe.training, **changes}
        return self.run("train", processed=processed.uri, **settings)

    def score(self, processed: Manifest, trained: Manifest) -> list[ScoredRow]:
        """The test films of a fold with their scores at full size."""
        predictions = self.run("predict", trained=trained.uri, films=self.raw.uri)
        evaluation = self.run("evaluate", predictions=predictions.uri, processed=processed.uri)
        rows = cast("Iterator[ScoredRow]", evaluation.rows(self.store))
        return [row for row in rows if row["status"] == "ok" and row["tested"]]

    def rows(self) -> Iterator[RawRow]:
        return raw_rows(self.store, self.raw)

    def run(self, job: str, **values: Any) -> Manifest:
        return _run(self.store, job, **values)


def _run(store: Store, job: str, **values: Any) -> Manifest:
    return run_job(job, build_config(job, {"out": OUT, **values}), store)[0]


def split_of(row: RawRow, fold: int | None) -> str:
    """The split of a film's patient; phantoms only train.

    A pure function of the patient's name, so that another film moves nobody.
    """
    patient = row["patient"]
    if row["source"] == PHANTOMS:
        return "train"
    if fold is not None and int(_fraction(FOLD_SALT + patient) * FOLDS) == fold:
        return "test"
    return "val" if _fraction(VAL_SALT + patient) < VAL_SHARE else "train"


def _fraction(text: str) -> float:
    """The first 8 bytes of a sha256 as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def group_of(origin: str) -> str:
    """Whose film it is: children or adults. All but those of the folder adults/ are of children."""
    return "adults" if origin.startswith("adults/") else "children"


def looks(store: Store, processed: Manifest) -> bytes:
    """The perceptual hashes of the films of people, HASH_BYTES each, sorted."""
    rows: Iterator[ProcessedRow] = processed_rows(store, processed)
    hashes = sorted(
        bytes.fromhex(row["looks"])
        for row in rows
        if row["status"] == "ok" and row["source"] != PHANTOMS
    )
    assert all(len(item) == HASH_BYTES for item in hashes)
    return b"".join(hashes)
