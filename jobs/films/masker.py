"""Films and a trained network -> their masks, at the films' own sizes.

Threads read and decode films while others compute and others write masks, a bounded number ahead:

    read, decode, resize   ->   network, a batch at a time   ->   restore, encode, draw, write
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from jobs.films import preview
from jobs.films.rows import PredictionRow
from jobs.imaging import decode, encode, masks, pictures
from jobs.imaging.geometry import Placement
from jobs.runtime.byte_budget import film_memory
from jobs.runtime.parallel import CORES, batched_map, ordered_map
from jobs.runtime.profile import timed
from jobs.segmentation import quality
from jobs.sources.source import too_large
from jobs.storage.manifest import FileRow
from jobs.storage.verified_read import read_checked

if TYPE_CHECKING:
    from jobs.films.network import Network

log = logging.getLogger(__name__)

# Most of these threads wait for S3; of the readers and the writers, CORES compute at a time. So at
# most CORES full-size films are in memory decoded, fewer where they are so large that the budget
# makes them wait, and at most READERS as files.
READERS, WRITERS = 12, 8
BATCHES_AHEAD = 2
# Bytes a pixel of a film while its mask is restored: probabilities, masks, labels of components.
RESTORE_BYTES = 12

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Film:
    """A film to mask.

    Attributes:
        origin: its path in its source.
        sha256: hex; empty where no manifest vouches for the film.
        etag: of the object that is to be masked; empty where any that lies there will do.
        bytes: its size as listed, so that a film too large is refused before it is read.
        is_placed: whether preprocess placed it in a square already.
        listing: further columns of its row.
    """

    id: str
    origin: str
    uri: str
    sha256: str = ""
    etag: str = ""
    bytes: int = 0
    is_placed: bool = False
    listing: Mapping[str, str] = field(default_factory=dict)

    def row(self, **columns: Any) -> PredictionRow:
        """The film's row: its name, its listing and `columns`."""
        return cast(
            "PredictionRow", {"id": self.id, "origin": self.origin, **self.listing, **columns}
        )

    def failed(self, reason: str) -> PredictionRow:
        log.warning("%s: %s", self.origin, reason)
        return self.row(status="failed", reason=reason)


@dataclass(frozen=True)
class _Square:
    """A film in the network's square (S, S), and the way back to its own size."""

    film: Film
    pixels: Pixels
    placement: Placement


@dataclass(frozen=True)
class Masker:
    """Masks films, one part of them after the other.

    read: the bytes of a film; None where it is no longer there.
    put: stores a film's mask (1-bit PNG, H x W of the film) under the film's id and returns the
        entry for its row.
    keep: takes a film's preview, a JPEG, under the film's id before the film's row is yielded.
    """

    network: Network
    read: Callable[[Film], bytes | None]
    put: Callable[[str, bytes], FileRow]
    keep: Callable[[str, bytes], None]
    _cores: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(CORES), init=False
    )

    def rows(self, parts: Iterable[Sequence[Film]]) -> Iterator[PredictionRow]:
        """A row a film, in order: its status is ok, failed (with a reason) or missing.

        Which films share a batch depends on their part alone, neither on threads nor on earlier
        work: a part that is masked again has the same bytes.
        """
        batches = itertools.chain.from_iterable(map(self.network.in_batches, parts))
        ahead = 2 * max(READERS, self.network.films_at_once)
        side_by_side = self.network.batches_at_once
        with contextlib.ExitStack() as stack:
            prepared = batched_map(self._prepare, batches, threads=READERS, ahead=ahead)
            stack.callback(prepared.close)
            computed = ordered_map(
                self._compute, prepared, threads=side_by_side, ahead=side_by_side + BATCHES_AHEAD
            )
            stack.callback(computed.close)
            films = itertools.chain.from_iterable(computed)
            yield from ordered_map(self._finish, films, threads=WRITERS)

    def _prepare(self, film: Film) -> _Square | PredictionRow:
        """The film in its square, or its row where it has none.

        A film that cannot be decoded is read once more: S3 may know no hash of it.
        """
        if reason := too_large(film.bytes):
            return film.failed(reason)

        def square(data: bytes | None) -> _Square | PredictionRow:
            if data is None:
                return film.row(status="missing")
            pictures.log_left_out(film.origin, data)
            return self._square(film, data)

        try:
            return read_checked(film.uri, lambda: self.read(film), square, decode.ImageError)
        except decode.ImageError as error:
            return film.failed(str(error))

    def _square(self, film: Film, data: bytes) -> _Square:
        with film_memory(decode.working_bytes(data)), self._cores:
            with timed("decode"):
                pixels = decode.decode_film(data)
            with timed("resize"):
                placement = self.network.place(pixels, is_placed=film.is_placed)
                return _Square(film, placement.film_to_square(pixels), placement)

    def _compute(
        self, batch: Sequence[_Square | PredictionRow]
    ) -> list[tuple[_Square, Probabilities] | PredictionRow]:
        """Each square of the batch with its probabilities (S, S); rows pass as they are."""
        squares = [item.pixels for item in batch if isinstance(item, _Square)]
        self.network.share_cores()
        probabilities = iter(self.network.probabilities(squares) if squares else ())
        return [
            (item, next(probabilities)) if isinstance(item, _Square) else item for item in batch
        ]

    def _finish(self, item: tuple[_Square, Probabilities] | PredictionRow) -> PredictionRow:
        """The row of a film, its mask stored."""
        if not isinstance(item, tuple):
            return item
        square, probabilities = item
        try:
            png, drawn, columns = self._restore(square, probabilities)
        except decode.ImageError as error:
            return square.film.failed(str(error))
        self.keep(square.film.id, drawn)
        entry = self.put(square.film.id, png)
        return square.film.row(status="ok", mask=entry, **columns)

    def _restore(
        self, square: _Square, probabilities: Probabilities
    ) -> tuple[bytes, bytes, dict[str, Any]]:
        """The film's mask as a PNG, its preview, and the row's columns of the mask."""
        placement = square.placement
        with film_memory(RESTORE_BYTES * placement.height * placement.width), self._cores:
            with timed("restore"):
                mask = self.network.mask(probabilities, placement)
                columns = self._measure(mask, quality.score(probabilities))
            with timed("encode"):
                png = encode.encode_mask(mask)
            with timed("preview"):
                return png, preview.draw(square.pixels, placement, mask), columns

    def _measure(self, mask: Mask, score: float) -> dict[str, Any]:
        """The row's columns of a mask, which is for review where there is a reason."""
        lung, score = masks.lung_fraction(mask), round(score, 6)
        reason = self._reason_to_review(lung, score)
        return {
            "height": mask.shape[0],
            "width": mask.shape[1],
            "lung_fraction": round(lung, 6),
            "quality": score,
            "review": bool(reason),
            **({"reason": reason} if reason else {}),
        }

    def _reason_to_review(self, lung: float, score: float) -> str:
        if lung == 0:
            return "no lung was found"
        limit = self.network.recipe.review_below
        return f"quality {score:.6g} is below {limit:.6g}" if score < limit else ""


def log_review(count: int, table: str) -> None:
    """Log how many masks are for review, if any, and the table that lists them."""
    if count:
        log.warning("%d masks are for review: those with review True in %s", count, table)
