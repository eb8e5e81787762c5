"""The validation films that a contest of two models is decided on, and the Dice on them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from jobs.films.known_looks import KnownLooks
from jobs.films.rows import ProcessedRow, ScoredRow
from jobs.films.training_pairs import Pair, read_pair, rows_of
from jobs.imaging.geometry import Placement, Placing
from jobs.models.package import Package
from jobs.reports.summary import bootstrap
from jobs.runtime.parallel import CPU_THREADS, ordered_map
from jobs.segmentation import metrics
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

# Of a mean Dice, and of the interval of a difference.
DIGITS, INTERVAL_DIGITS = 4, 6
PHANTOMS = "phantoms"
# The largest share of the films used whose true masks may look unlike lungs.
MOST_UNLIKE = 0.2


@dataclass(frozen=True)
class FilmSet:
    """Films of one processed manifest, with their true masks."""

    processed: Manifest
    rows: Sequence[ProcessedRow]

    def has_people(self) -> bool:
        return any(row["source"] != PHANTOMS for row in self.rows)


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion, or the starter in its place, on one set of validation films.

    Attributes:
        films_of: whose validation films: challenger, champion or both.
        films: how many films of each source.
        challenger, champion: mean Dice of each.
        low, high: the 95 % interval of the mean paired difference, challenger minus champion, over
            patients drawn with replacement; None where the films are of a single patient.
        incumbent: champion, or starter where there was no champion yet.
    """

    films_of: str
    films: dict[str, int]
    patients: int
    challenger: float
    champion: float
    low: float | None
    high: float | None
    incumbent: str = "champion"

    def is_better(self) -> bool:
        return self.challenger > self.champion

    def is_worse(self) -> bool:
        """Whether the interval lies below 0; without an interval the means tell."""
        return self.challenger < self.champion if self.high is None else self.high < 0

    def is_surely_better(self) -> bool:
        return self.is_better() and self.low is not None and self.low > 0

    def __str__(self) -> str:
        count = sum(self.films.values())
        sources = ", ".join(f"{source} {films}" for source, films in self.films.items())
        whose = {"both": "the validation films of both"}.get(
            self.films_of, f"the {self.films_of}'s own validation films"
        )
        interval = "no interval, one patient"
        if self.low is not None:
            interval = f"95 % interval of the difference {self.low:+.4f} to {self.high:+.4f}"
        theirs = f"the {self.incumbent}'s {self.champion:.{DIGITS}f}"
        means = f"{self.challenger:.{DIGITS}f} against {theirs}"
        return f"{means} on {whose} ({count}: {sources}; {interval})"


def val_films(store: Store, processed: Manifest, sources: Sequence[str]) -> FilmSet:
    # The validation films of a source left out of a network's training are its test films.
    return FilmSet(processed, list(rows_of(store, processed, "val", sources=sources)))


def unlike_lungs(processed: Manifest) -> str:
    """The sentence that says so where too many true masks look unlike lungs, else "".

    "" for films that preprocess judged by no shape, before version 0.2.0.
    """
    reasons: dict[str, int] = processed.details.get("unlike_lungs", {})
    films, unlike = processed.counts["records"], sum(reasons.values())
    if unlike <= MOST_UNLIKE * films:
        return ""
    listed = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    return f"The true masks of {unlike} of {films} films look unlike lungs ({listed})."


def without_trained_on(
    store: Store, films: FilmSet, processed: Manifest, sources: Sequence[str]
) -> FilmSet:
    """The films but those of patients, or with the pixels, of the training films of `processed`."""
    patients, pixels = set(), set()
    for row in rows_of(store, processed, "train", sources=sources):
        pixels.add(row.get("pixels"))
        # Every seed numbers its phantoms from 1: one name is not one patient.
        if row["source"] != PHANTOMS:
            patients.add(row["patient"])
    pixels.discard(None)
    kept = [
        row
        for row in films.rows
        if row["patient"] not in patients and row.get("pixels") not in pixels
    ]
    return FilmSet(films.processed, kept)


def dices(store: Store, films: FilmSet, package: Package) -> list[float]:
    """The hard Dice of a model on each film, at the films' processed size."""
    if not films.rows:
        return []
    # torch takes seconds to import, and a contest decided earlier needs none.
    from jobs.films.network import Network

    network = Network(package.model_json, package.weights)
    placing = processed_placing(films.processed)

    def read(row: ProcessedRow) -> tuple[ProcessedRow, Pair]:
        return row, read_pair(store, films.processed, row)

    scores = []
    for row, (square, mask) in ordered_map(read, films.rows, threads=CPU_THREADS):
        if network.placing.same_fit(placing):
            predicted = network.predict(square, is_placed=True)
        else:
            # Placed in another way: undo that, so that the model places the film in its own.
            placement = _lossless_size(Placement.of(row, placing.size))
            predicted = placement.mask_to_square(network.predict(placement.to_film(square)))
        scores.append(metrics.dice(predicted, mask))
    return scores


def mean_dice(scores: Sequence[float]) -> float:
    """Rounded to DIGITS digits: the figures compared are the figures shown."""
    return round(float(np.mean(scores)), DIGITS)


def compare(
    films_of: str,
    films: FilmSet,
    challenger: Sequence[float],
    champion: Sequence[float],
    *,
    only_people: bool,
    known: KnownLooks | None = None,
    incumbent: str = "champion",
) -> Comparison | None:
    """Both models' Dice on the films that count; None where none does.

    With `only_people`, films of phantoms do not count; films that look `known` never do.
    """
    counting = [
        (row, one, other)
        for row, one, other in zip(films.rows, challenger, champion, strict=True)
        if not (only_people and row["source"] == PHANTOMS) and not (known and known.has(row))
    ]
    if not counting:
        return None
    differences: list[dict[str, Any]] = [
        {"patient": row["patient"], "dice": one - other} for row, one, other in counting
    ]
    low, high = bootstrap(cast("list[ScoredRow]", differences), ["dice"])["dice"]
    return Comparison(
        films_of=films_of,
        films=dict(sorted(Counter(row["source"] for row, _, _ in counting).items())),
        patients=len({row["patient"] for row, _, _ in counting}),
        challenger=mean_dice([one for _, one, _ in counting]),
        champion=mean_dice([other for _, _, other in counting]),
        low=None if low is None else round(low, INTERVAL_DIGITS),
        high=None if high is None else round(high, INTERVAL_DIGITS),
        incumbent=incumbent,
    )


def processed_placing(processed: Manifest) -> Placing:
    config = processed.config
    return Placing(config["size"], config["fit"], config["crop_borders"])


def _lossless_size(placement: Placement) -> Placement:
    """The film in its own aspect, at the smallest size that keeps every pixel of the square."""
    box, crop = placement.box.shape, placement.crop.shape
    scale = max(box[0] / crop[0], box[1] / crop[1])
    return placement.at(round(placement.height * scale), round(placement.width * scale))
