"""One film and its masks, as they came -> the square pair that the network learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.imaging import decode, geometry, masks
from jobs.imaging.geometry import Placement
from jobs.runtime.profile import timed

MIN_LUNG_FRACTION, MAX_LUNG_FRACTION = 0.02, 0.75
NO_MASK = "no mask"

Entry = Mapping[str, Any]
Read = Callable[[Entry], bytes]
Place = Callable[[NDArray[np.uint8]], Placement]


@dataclass(frozen=True)
class SquareFilm:
    """A film and its mask in the square, as PNGs of 8 bits and of 1, and what the whole film is.

    Attributes:
        lung_fraction: the share of lung in the whole film.
        pixels: the sha256 of the film's decoded shape and pixels.
    """

    image: bytes
    mask: bytes
    placement: Placement
    lung_fraction: float
    pixels: str


def square_film(row: Entry, read: Read, place: Place) -> SquareFilm:
    """The film of a raw row and its lungs: read, decoded, checked, merged, resized and encoded.

    Of the images at full size only the lungs so far and the one just decoded are held at once.
    Raises ImageError with the reason where they cannot be used; what is the film's own in it, such
    as a shape, stands behind a colon.
    """
    if not row["masks"]:
        raise decode.ImageError(NO_MASK)
    if missing := {"left", "right"} - set(row["masks"]) if "lungs" not in row["masks"] else set():
        raise decode.ImageError(f"the {missing.pop()} lung's mask is missing")
    image, placement, pixels = _square_image(read(row["film"]), place)
    lungs = _read_lungs(map(read, row["masks"].values()))
    own = (placement.height, placement.width)
    if not geometry.same_aspect(own, lungs.shape):
        raise decode.ImageError(f"mask of another aspect: {lungs.shape} for {own}")
    with timed("check"):
        fraction = _checked_fraction(lungs)
    with timed("resize"):
        mask = placement.mask_to_square(lungs)
    with timed("encode"):
        return SquareFilm(image, decode.encode_mask(mask), placement, fraction, pixels)


def _square_image(data: bytes, place: Place) -> tuple[bytes, Placement, str]:
    """(PNG of the film in the square, its placement, the sha256 of its shape and pixels)."""
    with timed("decode"):
        film = decode.decode_film(data)
    with timed("check"):
        pixels = hashlib.sha256(repr(film.shape).encode())
        pixels.update(film.data)
    with timed("resize"):
        placement = place(film)
        square = placement.film_to_square(film)
    with timed("encode"):
        return decode.encode_png(square), placement, pixels.hexdigest()


def _read_lungs(files: Iterable[bytes]) -> NDArray[np.bool_]:
    """The union of the masks, bool (H, W)."""
    try:
        with timed("decode"):
            return masks.merge(map(decode.decode_mask, files))
    except decode.ImageError as error:
        raise decode.ImageError(f"mask {error}") from error
    except ValueError as error:
        raise decode.ImageError(str(error)) from error


def _checked_fraction(lungs: NDArray[np.bool_]) -> float:
    fraction = masks.lung_fraction(lungs)
    if fraction == 0:
        raise decode.ImageError("empty mask")
    if not MIN_LUNG_FRACTION <= fraction <= MAX_LUNG_FRACTION:
        raise decode.ImageError(
            f"lung fraction outside {MIN_LUNG_FRACTION} to {MAX_LUNG_FRACTION}: {fraction:.3f}"
        )
    return fraction
