"""Films that look the same and are in two splits."""

from __future__ import annotations

import logging
from typing import Any, cast

import numpy as np
import pytest

from jobs.films import look_alikes
from jobs.films.look_alikes import LookAlikes, Pair
from jobs.films.rows import ProcessedRow
from jobs.imaging.perceptual_hash import HASH_BYTES


def row(film: str, split: str, looks: bytes) -> ProcessedRow:
    return cast("ProcessedRow", {"id": film, "split": split, "looks": looks.hex()})


def changed(looks: bytes, bits: int) -> bytes:
    return (int.from_bytes(looks) ^ (2**bits - 1)).to_bytes(HASH_BYTES)


def collected(*rows: Any) -> LookAlikes:
    films = LookAlikes()
    for one in rows:
        films.add(row(*one))
    return films


def test_pairs_are_told_where_their_films_are_in_two_splits() -> None:
    a, b = (np.random.default_rng(seed).bytes(HASH_BYTES) for seed in (1, 2))
    films = collected(
        ("a", "train", a), ("b", "test", b), ("a2", "train", changed(a, 3)), ("a3", "val", a)
    )
    # The first of equal hashes stands for all of them beside a similar one.
    assert films.across_splits() == [Pair("a", "train", "a3", "val")]


def test_without_films_there_are_no_pairs() -> None:
    assert LookAlikes().across_splits() == []


def test_the_warning_names_five_pairs_and_the_table(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [Pair(f"a{number}", "train", f"b{number}", "test") for number in range(7)]
    with caplog.at_level(logging.WARNING):
        look_alikes.warn(pairs, "s3://lung/look_alikes.csv")
        look_alikes.warn([], "s3://lung/other.csv")
    (message,) = caplog.messages
    assert message.startswith(
        "7 pairs of films look the same and are in two splits: a0 (train) and"
    )
    assert "b4 (test) and 2 more" in message and message.endswith("s3://lung/look_alikes.csv")
