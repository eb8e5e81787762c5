"""The raw masks of films, which predictions are scored on: the lungs as preprocess took them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadDataError
from jobs.films.rows import RawRow
from jobs.imaging import decode, geometry, mask_values, masks
from jobs.imaging.mask_levels import Value
from jobs.runtime.byte_budget import film_memory
from jobs.runtime.profile import timed
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Truths:
    """The masks of a raw manifest; pixels of the `named` values are lung, as in preprocess."""

    store: Store
    raw: Manifest
    named: Sequence[Value]

    @staticmethod
    def of(store: Store, raw: Manifest, processed: Manifest) -> Truths:
        named = mask_values.parse(processed.config.get("mask_values", ""))
        return Truths(store, raw, named)

    def files(self, film: RawRow) -> list[bytes]:
        """The film's masks as they are in S3, verified."""
        return [
            self.store.read(self.raw.uri_of(entry["key"]), sha256=entry["sha256"])
            for entry in film["masks"].values()
        ]

    def decode(self, files: Sequence[bytes], shape: tuple[int, ...]) -> Mask:
        """The union of a film's masks, bool of `shape` (H, W), resized if of another size.

        Raises ImageError where one cannot be decoded.
        """
        truth = masks.merge(map(self._decoded, files))
        height, width = shape
        if truth.shape == shape:
            return truth
        return geometry.resize_lungs(truth, height, width)

    def _decoded(self, data: bytes) -> Mask:
        with timed("decode"):
            return decode.decode_truth(data, self.named).pixels


@contextlib.contextmanager
def decoding(film: RawRow, count: int, files: Sequence[bytes]) -> Iterator[None]:
    """Hold `count` bytes and what the masks take; BadDataError where the block cannot decode."""
    try:
        with film_memory(count + sum(map(decode.working_bytes, files))):
            yield
    except decode.MaskError as error:
        # Versions before --mask-values used such masks.
        raise BadDataError(f"mask of {film['origin']}: {error}: run preprocess again") from error
    except decode.ImageError as error:
        raise BadDataError(
            f"{film['origin']} or a mask of it cannot be scored ({error}): give the job more "
            "memory, or leave the film out of the source and start again at download"
        ) from error
