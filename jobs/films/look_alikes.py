"""Films of two splits that look the same: a copy at another scale flatters the test figures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jobs.films.rows import ProcessedRow, Split
from jobs.imaging.perceptual_hash import HASH_BYTES, similar_pairs

log = logging.getLogger(__name__)

LOOK_ALIKES_CSV = "look_alikes.csv"
COLUMNS = ["film", "split", "other_film", "other_split"]
# Pairs listed in the log.
NAMED = 5


class Pair(NamedTuple):
    film: str
    split: Split
    other_film: str
    other_split: Split

    def __str__(self) -> str:
        return f"{self.film} ({self.split}) and {self.other_film} ({self.other_split})"


class LookAlikes:
    """Collects films by their perceptual hashes; some 100 bytes a film."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._films: list[tuple[str, Split]] = []

    def add(self, row: ProcessedRow) -> None:
        """Note a good film."""
        self._hashes += bytes.fromhex(row["looks"])
        self._films.append((row["id"], row["split"]))

    def across_splits(self) -> list[Pair]:
        """The pairs whose films are in two splits, in the order of the films."""
        hashes = np.frombuffer(bytes(self._hashes), np.uint8).reshape(-1, HASH_BYTES)
        pairs = (
            Pair(*self._films[first], *self._films[second])
            for first, second in similar_pairs(hashes)
        )
        return [pair for pair in pairs if pair.split != pair.other_split]


def lines(pairs: list[Pair]) -> Iterator[Mapping[str, str]]:
    """The rows of look_alikes.csv."""
    return (pair._asdict() for pair in pairs)


def warn(pairs: list[Pair], uri: str) -> None:
    """Log a warning where there are pairs; `uri` is that of the table."""
    if pairs:
        named = ", ".join(map(str, pairs[:NAMED]))
        more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
        log.warning(
            "%d pairs of films look the same and are in two splits: %s%s: leave one of each out, "
            "or give both the same patient (--patients): see %s",
            len(pairs),
            named,
            more,
            uri,
        )
