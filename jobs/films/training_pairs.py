"""Processed films with their masks, a split at a time: pairs to train on and to score on."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadDataError, ConfigError
from jobs.films.rows import ProcessedRow, Split, processed_rows
from jobs.imaging import decode
from jobs.runtime.byte_budget import film_memory
from jobs.runtime.parallel import ordered_map
from jobs.runtime.profile import timed
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.typed_json import REMEDY

# Bytes that decoding takes for a pixel, at most, of the kinds that preprocess writes.
PIXEL_BYTES = 8

Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def read_pairs(
    store: Store,
    processed: Manifest,
    split: Split,
    *,
    sources: Container[str] | None = None,
    threads: int,
) -> Iterator[Pair]:
    """(film, mask) of every film of the split in the manifest's order, each (S, S), checked.

    With `sources`, of the films of these sources alone.
    """
    rows = rows_of(store, processed, split, sources=sources)
    return ordered_map(lambda row: read_pair(store, processed, row), rows, threads=threads)


def rows_of(
    store: Store, processed: Manifest, split: Split, *, sources: Container[str] | None = None
) -> Iterator[ProcessedRow]:
    """The rows of the films that `read_pairs` reads, in the same order."""
    for row in processed_rows(store, processed):
        if row.get("split") == split and (sources is None or row["source"] in sources):
            yield row


def read_pair(store: Store, processed: Manifest, row: ProcessedRow) -> Pair:
    """(film, mask) of one row of `processed`, uint8 and bool (S, S), checked by their sha256."""
    film, mask = (
        store.read(processed.uri_of(entry["key"]), sha256=entry["sha256"])
        for entry in (row["image"], row["mask"])
    )
    shape = (processed.config["size"],) * 2
    needed = decode.working_bytes(film) + decode.working_bytes(mask)
    try:
        if needed > 2 * PIXEL_BYTES * shape[0] * shape[1]:
            raise decode.ImageError("larger than the square of preprocess")
        with film_memory(needed), timed("decode"):
            pair = decode.decode_film(film), decode.decode_mask(mask)
        if any(pixels.shape != shape for pixels in pair):
            raise decode.ImageError(f"they have {pair[0].shape} and {pair[1].shape}, not {shape}")
    except decode.ImageError as error:
        raise BadDataError(
            f"{processed.uri}: film or mask of {row['id']} cannot be used ({error}): {REMEDY}"
        ) from error
    return pair


def count_films(processed: Manifest, split: Split, sources: Iterable[str]) -> int:
    """How many films of `sources` are in the split."""
    by_source = _films_by_source(processed)
    return sum(by_source.get(source, {}).get(split, 0) for source in sources)


def sources_of(processed: Manifest) -> list[str]:
    """The sources of the films: montgomery, shenzhen, ..., sorted."""
    return sorted(_films_by_source(processed))


def chosen_sources(processed: Manifest, flag: str, names: str) -> list[str]:
    """The sources that the flag's value `names`, joined by commas, chooses, sorted; empty: all.

    Raises ConfigError for a source without films.
    """
    sources = sources_of(processed)
    chosen = sorted(set(filter(None, names.split(",")))) or sources
    if missing := [source for source in chosen if source not in sources]:
        raise ConfigError(
            f"{flag} {names}: there are no films of {missing[0]}, give some of {', '.join(sources)}"
        )
    return chosen


def _films_by_source(processed: Manifest) -> dict[str, dict[str, int]]:
    """{source: {split: films}}. Raises BadDataError for a manifest that version 0.1.0 wrote."""
    by_source: dict[str, Any] = processed.details["by_source"]
    if not all(isinstance(counts, dict) for counts in by_source.values()):
        raise BadDataError(
            f"{processed.uri} was written by version 0.1.0, which counted films in another form: "
            "run preprocess again on the same raw films and give the manifest that it prints"
        )
    return by_source
