"""Tries that call the product in this process; each returns one line of what it gave.

An action takes the bench and the folder of the case, a copy that may be written to.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.chain import run_job
from jobs.errors import JobError
from jobs.films.rows import prediction_rows, processed_rows, raw_rows
from jobs.films.skipped import described
from jobs.imaging.decode import decode_film
from jobs.local import copy_to_incoming
from jobs.settings.config import build_config
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store

# Gray levels that a JPEG of a film with noise of 9 levels differs from it on average, at most: at
# quality 75 as in TIFF, and at quality 95.
LOSS_75, LOSS_95 = 6.0, 1.6
SIZE = 64


@dataclass(frozen=True)
class Bench:
    """What all tries share: an S3, its variables for processes, a model, and a folder to fill.

    artifacts: a copy of the folder of the run that trained the model, for processes.
    """

    store: Store
    environment: dict[str, str]
    trained: str
    artifacts: Path
    scratch: Path
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def out(self) -> str:
        """A prefix that no other try has."""
        return f"s3://lung/cases/{next(self.numbers)}"

    def run(self, job: str, out: str, **values: Any) -> Manifest:
        return run_job(job, build_config(job, {"out": out, **values}), self.store)[0]


Action = Callable[[Bench, Path], str]


def failed(error: JobError) -> str:
    return f"exit {error.exit_code}: {error}"


# Download


def pairs(source: str = "data", *, patients: str = "") -> Action:
    """Download: films with masks and their patients, and what is left over."""

    def action(bench: Bench, case: Path) -> str:
        raw = _download(bench, case, source, patients)
        rows = list(raw_rows(bench.store, raw))
        got = f"{raw.counts['pairs']} pairs of {len({row['patient'] for row in rows})} patients"
        sides = sorted({side for row in rows for side in row["masks"]} - {"lungs"})
        got += f", masks {' and '.join(sides)}" if sides else ""
        without = raw.counts["without_mask"]
        got += f", {without} without a mask" if without else ""
        ignored = raw.details["ignored"]
        return got + (f"; passed over: {described(ignored)}" if ignored else "")

    return action


def refused(source: str = "data") -> Action:
    """Download that should fail: its error, and how many objects it wrote before."""

    def action(bench: Bench, case: Path) -> str:
        out = bench.out()
        try:
            bench.run("download", out, source=(case / source).as_uri())
        except JobError as error:
            written = len(list(bench.store.list_objects(out + "/")))
            return failed(error) + f" ({written} objects written)"
        return "not refused"

    return action


def folders_of_masks(source: str = "data") -> Action:
    """Download: the folders in which the masks lie that it copied, told by their bytes."""

    def action(bench: Bench, case: Path) -> str:
        raw = _download(bench, case, source)
        copied = {
            entry["sha256"] for row in raw_rows(bench.store, raw) for entry in row["masks"].values()
        }
        folders = {
            path.parent.name
            for path in (case / source).rglob("*.png")
            if "mask" in path.parent.name and _sha256(path) in copied
        }
        return f"masks of {', '.join(sorted(folders))}"

    return action


def names(source: str, word: str) -> Action:
    """Download: how many films' paths contain a word."""

    def action(bench: Bench, case: Path) -> str:
        rows = raw_rows(bench.store, _download(bench, case, source))
        return f"{sum(word in row['origin'] for row in rows)} names with {word}"

    return action


def _download(bench: Bench, case: Path, source: str, patients: str = "") -> Manifest:
    table = (case / patients).as_uri() if patients else ""
    return bench.run("download", bench.out(), source=(case / source).as_uri(), patients=table)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Preprocess


def records(source: str = "data", **flags: Any) -> Action:
    """Download and preprocess: the films that are left, and why others are not."""

    def action(bench: Bench, case: Path) -> str:
        raw = _download(bench, case, source)
        out = raw.uri.rpartition("/raw/")[0]
        processed = bench.run("preprocess", out, raw=raw.uri, size=SIZE, **flags)
        rows = processed_rows(bench.store, processed)
        reasons = Counter(
            row["reason"].partition(":")[0] for row in rows if row["status"] == "quarantined"
        )
        got = f"{processed.counts['records']} records"
        return got + "".join(f", {reason} {n}" for reason, n in reasons.most_common())

    return action


def training(source: str = "data", **flags: Any) -> Action:
    """Download, preprocess and train: one epoch of films of 32 pixels, each a step."""

    def action(bench: Bench, case: Path) -> str:
        raw = _download(bench, case, source)
        out = raw.uri.rpartition("/raw/")[0]
        processed = bench.run("preprocess", out, raw=raw.uri, size=32)
        settings = {"epochs": 1, "batch_size": 1, "learning_rate": 1.0, "network": "small"}
        trained = bench.run("train", out, processed=processed.uri, **settings, **flags)
        return f"trained, {trained.counts['epochs']} epochs"

    return action


# Predict


def masks(folder: str = "data") -> Action:
    """Predict on a folder: its masks, why films failed, and what was passed over."""

    def action(bench: Bench, case: Path) -> str:
        predictions = _predict(bench, case / folder)
        counts = predictions.counts
        rows = prediction_rows(bench.store, predictions)
        reasons = Counter(row["reason"] for row in rows if row["status"] == "failed")
        got = f"{counts['masks']} masks of {counts['films']} films"
        got += "".join(f"; failed: {reason} ({n})" for reason, n in reasons.most_common())
        skipped = predictions.details["skipped"]
        return got + (f"; passed over: {described(skipped)}" if skipped else "")

    return action


def masked_names(folder: str, *expected: str) -> Action:
    """Predict: which of the names its rows have."""

    def action(bench: Bench, case: Path) -> str:
        rows = prediction_rows(bench.store, _predict(bench, case / folder))
        origins = {row["origin"] for row in rows}
        return "names " + ", ".join(name for name in expected if name in origins)

    return action


def formulas(folder: str = "data") -> Action:
    """Predict: the cells of predictions.csv that a spreadsheet would run."""

    def action(bench: Bench, case: Path) -> str:
        predictions = _predict(bench, case / folder)
        text = predictions.read_file(bench.store, "predictions.csv").decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text)))
        cells = [cell for line in lines for cell in line if cell.startswith(tuple("=+-@\t\r"))]
        return f"{len(lines) - 1} lines, {len(cells)} formulas"

    return action


def _predict(bench: Bench, folder: Path) -> Manifest:
    out = bench.out()
    prefix = copy_to_incoming(bench.store, folder.as_uri(), out)
    return bench.run("predict", out, trained=bench.trained, films=prefix)


# Decoding


def same_as(folder: str, truth: str, *, corner: float = 0.0, levels: int = 0) -> Action:
    """Decode two folders: how many films of one are those of the other, but for a corner.

    corner: the share of height and width, from the upper left, that may differ. levels: how many
    gray levels any other pixel may.
    """

    def action(bench: Bench, case: Path) -> str:
        films = sorted((case / folder).iterdir())
        same = sum(_differs(path, case / truth / path.name, corner) <= levels for path in films)
        return f"{same} of {len(films)} the same"

    return action


def decoded_as(truth: str, names: str, lossy: Mapping[str, float]) -> Action:
    """Decode the files of a glob: those that are not the film of `truth` to the pixel, if any.

    lossy: the mean difference, in gray levels, of the files whose names match a pattern, at most.
    """

    def action(bench: Bench, case: Path) -> str:
        film = decode_film((case / truth).read_bytes())
        files = sorted((case / truth).parent.glob(names))
        others = [path.name for path in files if not _is_alike(path, film, lossy)]
        height, width = film.shape
        got = f"{len(files) - len(others)} of {len(files)} are the film of {height}x{width}"
        return got + "".join(f", {name} is not" for name in others)

    return action


def _is_alike(path: Path, truth: NDArray[np.uint8], lossy: Mapping[str, float]) -> bool:
    film = decode_film(path.read_bytes())
    if film.shape != truth.shape:
        return False
    loss = max((lossy[end] for end in lossy if re.fullmatch(end, path.name)), default=0.0)
    return float(np.abs(film.astype(float) - truth).mean()) <= loss


def _differs(path: Path, truth: Path, corner: float) -> int:
    """The largest difference of two films of one size outside the corner, in gray levels."""
    film, other = (decode_film(file.read_bytes()).astype(int) for file in (path, truth))
    difference = np.abs(film - other)
    height, width = difference.shape
    difference[: int(height * corner), : int(width * corner)] = 0
    return int(difference.max())
