"""Processed films with their masks, a split at a time: what is trained on and what is scored on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jobs.imaging import decode
from jobs.manifest import Manifest, Row
from jobs.parallel import ordered_map
from jobs.storage import Store

Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def read_pairs(store: Store, processed: Manifest, split: str, *, threads: int) -> Iterator[Pair]:
    """(film, mask) of every film of the split in the manifest's order, each H x W, checked."""

    def read(row: Row) -> Pair:
        film, mask = (
            store.read(processed.uri_of(row[kind]["key"]), sha256=row[kind]["sha256"])
            for kind in ("image", "mask")
        )
        return decode.decode_film(film), decode.decode_mask(mask)

    rows = (row for row in processed.rows(store) if row.get("split") == split)
    return ordered_map(read, rows, threads=threads)
