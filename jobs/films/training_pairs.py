"""Processed films with their masks, a split at a time: what is trained on and what is scored on."""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np
from numpy.typing import NDArray

from jobs.errors import ConfigError
from jobs.imaging import decode
from jobs.runtime.parallel import ordered_map
from jobs.runtime.profile import timed
from jobs.storage.manifest import Manifest, Row
from jobs.storage.s3 import Store

Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def read_pairs(
    store: Store,
    processed: Manifest,
    split: str,
    *,
    sources: Container[str] | None = None,
    threads: int,
) -> Iterator[Pair]:
    """(film, mask) of every film of the split in the manifest's order, each H x W, checked.

    With `sources`, of those of the split that came from one of them.
    """
    rows = rows_of(store, processed, split, sources=sources)
    return ordered_map(lambda row: read_pair(store, processed, row), rows, threads=threads)


def rows_of(
    store: Store, processed: Manifest, split: str, *, sources: Container[str] | None = None
) -> Iterator[Row]:
    """The rows of the films that `read_pairs` reads, in the same order."""
    for row in processed.rows(store):
        if row.get("split") == split and (sources is None or row["source"] in sources):
            yield row


def sources_of(processed: Manifest) -> list[str]:
    """Where the films came from: montgomery, shenzhen, ..., sorted."""
    return sorted({key.partition("/")[0] for key in processed.details["by_source"]})


def chosen_sources(processed: Manifest, flag: str, chosen: str) -> list[str]:
    """Those that the flag's value, joined by commas, names, sorted; all where it is empty.

    Raises ConfigError for one that has no films.
    """
    there = sources_of(processed)
    asked = sorted(set(filter(None, chosen.split(",")))) or there
    if missing := [source for source in asked if source not in there]:
        raise ConfigError(
            f"{flag} {chosen}: there are no films of {missing[0]}, give some of {', '.join(there)}"
        )
    return asked


def read_pair(store: Store, processed: Manifest, row: Row) -> Pair:
    """(film, mask) of one row of `processed`, each H x W, checked."""
    film, mask = (
        store.read(processed.uri_of(row[kind]["key"]), sha256=row[kind]["sha256"])
        for kind in ("image", "mask")
    )
    with timed("decode"):
        return decode.decode_film(film), decode.decode_mask(mask)
