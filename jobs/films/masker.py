"""Films and a trained network -> their masks, at the films' own sizes, wherever these are needed.

Threads read and decode films while one computes and others write masks, each some films ahead:

    read, decode, resize   ->   network, a batch at a time   ->   restore, encode, write
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.films.postprocess import MaskRecipe, to_mask
from jobs.imaging import decode, geometry, masks
from jobs.imaging.geometry import Placement
from jobs.runtime.parallel import CORES, batched_map, ordered_map
from jobs.runtime.profile import timed
from jobs.segmentation import quality
from jobs.sources.source import too_large
from jobs.storage.manifest import Row

log = logging.getLogger(__name__)

# Most of them wait for S3: of those that read and those that write, CORES compute at a time. So
# no more full-size films are in memory decoded, and no more than READERS of them as files.
READERS, WRITERS = 12, 8
BATCHES_AHEAD = 2

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Film:
    """A film to mask: its id, its name where it came from, and where it lies.

    `sha256` is given where a manifest vouches for it; `bytes` is its size as listed, by which one
    that is too large is told before it is read; `more` is what else its row is to say.
    """

    id: str
    origin: str
    uri: str
    sha256: str = ""
    bytes: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Prepared:
    """A film on its way: its row and, where it could be read, its square and the way back."""

    row: Row
    square: Pixels | None = None
    placement: Placement | None = None


class Network:
    """A trained network and what its model.json says of films and masks; threads share it."""

    def __init__(self, about: Mapping[str, Any], weights: bytes) -> None:
        # torch takes a second to import, which nothing before the first film need wait for.
        from jobs.segmentation import inference

        self._inference = inference
        self._model = inference.load_model(weights, about["architecture"])
        self._placing = placing(about["recipe"])
        self._precision = about["recipe"]["precision"]
        self.recipe = MaskRecipe.of(about["recipe"])

    def place(self, film: Pixels) -> Placement:
        """Where a film (H, W) goes in the square (S, S) that the network sees, and back."""
        return geometry.place(film, **self._placing)

    def mask(self, probabilities: Probabilities, placement: Placement) -> Mask:
        """The mask, at the film's own size, of what the network found on its square."""
        return to_mask(placement.to_film(probabilities), self.recipe)

    def probabilities(self, squares: Sequence[Pixels]) -> Probabilities:
        """Probabilities of lung (B, S, S) in [0, 1] of one or more squares.

        Their last bits may depend on how many squares come together, as one kernel or another is
        the fastest for so many.
        """
        with timed("compute"):
            images = np.stack(squares)
            return self._inference.probabilities(self._model, images, precision=self._precision)

    def in_batches(self, films: Sequence[Film]) -> Iterator[Sequence[Film]]:
        """The films that are to be computed together."""
        return self._inference.in_batches(films, self.films_at_once)

    @functools.cached_property
    def batches_at_once(self) -> int:
        """How many batches to compute side by side."""
        return self._inference.batches_at_once(self._placing["size"])

    def share_cores(self) -> None:
        """Leave the cores' other shares to the batches that other threads compute meanwhile."""
        if self.batches_at_once > 1:
            self._inference.share_threads(self.batches_at_once)

    @functools.cached_property
    def films_at_once(self) -> int:
        """The most of them, by size and device."""
        size = self._placing["size"]
        most = self._inference.films_at_once(self._model, size, precision=self._precision)
        log.info("%d films of %d x %d pixels at once", most, size, size)
        return most


def load_network(about: Mapping[str, Any], weights: bytes) -> Callable[[Pixels], Probabilities]:
    """A function of a film (H x W) that returns its probabilities of lung, (S, S) in [0, 1].

    S is the size that model.json names.
    """
    network = Network(about, weights)
    return lambda film: network.probabilities([network.place(film).film_to_square(film)])[0]


def load_predictor(about: Mapping[str, Any], weights: bytes) -> Callable[[Pixels], Mask]:
    """A function of a film (H x W) that returns its mask (H x W), by what model.json says."""
    network = Network(about, weights)

    def predict(film: Pixels) -> Mask:
        placement = network.place(film)
        (probabilities,) = network.probabilities([placement.film_to_square(film)])
        return network.mask(probabilities, placement)

    return predict


def placing(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """How `geometry.place` is to place a film, by what model.json says of the model's films."""
    return {
        "size": recipe["spatial_size"],
        "fit": recipe.get("fit", geometry.STRETCH),
        "crop_borders": recipe.get("crop_borders", False),
    }


@dataclass(frozen=True)
class Masker:
    """Masks films, a part of them after the other.

    read: the bytes of a film; None where it is not there any more.
    put: takes a film's id and its mask (1-bit PNG, H x W of the film), returns what the row says
        of it.
    """

    network: Network
    read: Callable[[Film], bytes | None]
    put: Callable[[str, bytes], Row]
    _cores: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(CORES), init=False
    )

    def rows(self, parts: Iterable[Sequence[Film]]) -> Iterator[Row]:
        """A row a film, in order: its status is ok, failed (with a reason) or missing.

        Which films go through the network together depends on their part alone, neither on threads
        nor on what was done before: a part done again has the same bytes.
        """
        batches = itertools.chain.from_iterable(map(self.network.in_batches, parts))
        ahead = 2 * max(READERS, self.network.films_at_once)
        with contextlib.ExitStack() as stack:
            ready = batched_map(self._prepare, batches, threads=READERS, ahead=ahead)
            stack.callback(ready.close)
            side_by_side = self.network.batches_at_once
            found = ordered_map(
                self._compute, ready, threads=side_by_side, ahead=side_by_side + BATCHES_AHEAD
            )
            stack.callback(found.close)
            films = itertools.chain.from_iterable(found)
            yield from ordered_map(self._finish, films, threads=WRITERS)

    def _prepare(self, film: Film) -> _Prepared:
        row = {"id": film.id, "origin": film.origin, **film.more}
        if reason := too_large(film.bytes):
            return _failed(row, reason)
        data = self.read(film)
        if data is None:
            return _Prepared(row | {"status": "missing"})
        try:
            with self._cores:
                with timed("decode"):
                    pixels = decode.decode_film(data)
                with timed("resize"):
                    placement = self.network.place(pixels)
                    return _Prepared(row, placement.film_to_square(pixels), placement)
        except decode.ImageError as error:
            return _failed(row, str(error))

    def _compute(self, films: Sequence[_Prepared]) -> list[tuple[_Prepared, Probabilities | None]]:
        """Each film with its probabilities; None for those that could not be read."""
        squares = [film.square for film in films if film.square is not None]
        self.network.share_cores()
        found = iter(self.network.probabilities(squares) if squares else ())
        return [(film, None if film.square is None else next(found)) for film in films]

    def _finish(self, pair: tuple[_Prepared, Probabilities | None]) -> Row:
        film, probabilities = pair
        if probabilities is None or film.placement is None:
            return film.row
        with self._cores:
            with timed("restore"):
                mask = self.network.mask(probabilities, film.placement)
                about = self._about(mask, quality.score(probabilities))
            with timed("encode"):
                png = decode.encode_mask(mask)
        return film.row | {"status": "ok", "mask": self.put(film.row["id"], png), **about}

    def _about(self, mask: Mask, score: float) -> Row:
        """What the row says of a mask. It is for review below the model's quality, or empty."""
        lung, score = masks.lung_fraction(mask), round(score, 6)
        return {
            "height": mask.shape[0],
            "width": mask.shape[1],
            "lung_fraction": round(lung, 6),
            "quality": score,
            "review": lung == 0 or score < self.network.recipe.review_below,
        }


def _failed(row: Row, reason: str) -> _Prepared:
    log.warning("%s: %s", row["origin"], reason)
    return _Prepared(row | {"status": "failed", "reason": reason})


def log_review(count: int, table: str) -> None:
    """Say how many masks are for review, where there are any, and in which table they stand."""
    if count:
        log.warning("%d masks are for review: those with review True in %s", count, table)
