"""One film with its masks, as downloaded -> the square pair that the network learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.films.rows import RawRow
from jobs.imaging import decode, encode, geometry, lung_shape, masks, pictures
from jobs.imaging.geometry import Placement, Placing
from jobs.imaging.mask_levels import Value
from jobs.imaging.perceptual_hash import perceptual_hash
from jobs.runtime.byte_budget import film_memory
from jobs.runtime.profile import timed
from jobs.storage.manifest import FileRow

# Of the whole film: below is a mask's fragment or a speck, above is more than a chest can hold.
MIN_LUNG_FRACTION, MAX_LUNG_FRACTION = 0.02, 0.75
NO_MASK = "no mask"

Read = Callable[[FileRow], bytes]


@dataclass(frozen=True)
class SquareFilm:
    """A film and its mask in the square, with figures of the whole film.

    Attributes:
        image: PNG, uint8 (S, S).
        mask: PNG of 1 bit (S, S), the union of the lungs.
        lung_fraction: 0..1, of the whole film.
        pixels: sha256 (hex) of the decoded film's shape and pixels.
        looks: the perceptual hash (hex) of the film in the square.
        unlike_lungs: why the mask looks unlike lungs, "" where it looks like them.
        named: which of the named values the masks have.
    """

    image: bytes
    mask: bytes
    placement: Placement
    lung_fraction: float
    pixels: str
    looks: str
    unlike_lungs: str
    named: tuple[Value, ...]


def square_film(
    row: RawRow, read: Read, placing: Placing, named: Sequence[Value] = ()
) -> SquareFilm:
    """Read, decode, check, merge, resize and encode the film of a raw row and its lung masks.

    Pixels of the `named` values are lung; without any, each mask must have two values. At full size
    only the merged mask and the image decoded last are in memory at once.
    Raises ImageError with the reason where the film or a mask cannot be used; details of the
    single film, such as a shape, follow a colon.
    """
    if not row["masks"]:
        raise decode.ImageError(NO_MASK)
    if missing := {"left", "right"} - set(row["masks"]) if "lungs" not in row["masks"] else set():
        raise decode.ImageError(f"the {missing.pop()} lung's mask is missing")
    film = read(row["film"])
    pictures.log_left_out(row["origin"], film)
    image, placement, pixels, looks = _square_image(film, placing)
    turned = _Turned(decode.orientation_of(film), set())
    del film
    found: set[Value] = set()
    files = turned.noted(map(read, row["masks"].values()))
    lungs = _merged(_read_masks(files, named, found))
    film_shape = (placement.height, placement.width)
    turned.check(film_shape, lungs.shape)
    if not geometry.same_aspect(film_shape, lungs.shape):
        raise decode.ImageError(f"mask of another aspect: {lungs.shape} for {film_shape}")
    with timed("check"):
        fraction = _checked_fraction(lungs)
        unlike_lungs = lung_shape.unlike_lungs(lungs)
    with timed("resize"):
        mask = placement.mask_to_square(lungs)
    with timed("encode"):
        return SquareFilm(
            image=image,
            mask=encode.encode_mask(mask),
            placement=placement,
            lung_fraction=fraction,
            pixels=pixels,
            looks=looks,
            unlike_lungs=unlike_lungs,
            named=tuple(value for value in named if value in found),
        )


@dataclass(frozen=True)
class _Turned:
    """The EXIF orientation of a film, 1 to 8, and those of its masks' files."""

    film: int
    masks: set[int]

    def noted(self, files: Iterable[bytes]) -> Iterable[bytes]:
        """The files of the masks, whose orientations are noted where the film is turned."""
        for data in files:
            if self.film != 1:
                self.masks.add(decode.orientation_of(data))
            yield data

    def check(self, film_shape: tuple[int, int], mask_shape: tuple[int, int]) -> None:
        """Raise ImageError where a mask may have been drawn on the film as it is stored.

        Programs that ignore EXIF draw there, and the shapes of a square tell neither.
        """
        stored = film_shape[::-1] if self.film > 4 else film_shape
        others = sorted(self.masks - {self.film})
        is_upright = mask_shape == film_shape != stored
        if others and not is_upright and geometry.same_aspect(stored, mask_shape):
            raise decode.ImageError(
                f"orientation: {self.film} in the film's EXIF and {others[0]} in its mask's: write "
                "both upright (mogrify -auto-orient), or give the mask the film's orientation"
            )


def _square_image(data: bytes, placing: Placing) -> tuple[bytes, Placement, str, str]:
    """(PNG of the film in the square, its placement, sha256 of its shape and pixels, its looks)."""
    with film_memory(decode.working_bytes(data)):
        with timed("decode"):
            film = decode.decode_film(data)
        with timed("check"):
            pixels = hashlib.sha256(repr(film.shape).encode())
            pixels.update(film.data)
        with timed("resize"):
            placement = placing.place(film)
            square = placement.film_to_square(film)
    with timed("encode"):
        image = encode.encode_png(square)
    return image, placement, pixels.hexdigest(), perceptual_hash(square).hex()


def _merged(lungs: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The union of the masks, bool (H, W)."""
    try:
        with timed("decode"):
            return masks.merge(lungs)
    except decode.MaskError:
        raise
    except decode.ImageError as error:
        raise decode.ImageError(f"mask {error}") from error
    except ValueError as error:
        raise decode.ImageError(str(error)) from error


def _read_masks(
    files: Iterable[bytes], named: Sequence[Value], found: set[Value]
) -> Iterator[NDArray[np.bool_]]:
    """The lungs of each file; the named values that it has are added to `found`."""
    for data in files:
        with film_memory(decode.working_bytes(data)):
            lungs = decode.decode_truth(data, named)
        found.update(lungs.named)
        yield lungs.pixels


def _checked_fraction(lungs: NDArray[np.bool_]) -> float:
    fraction = masks.lung_fraction(lungs)
    if fraction == 0:
        raise decode.ImageError("empty mask")
    if not MIN_LUNG_FRACTION <= fraction <= MAX_LUNG_FRACTION:
        raise decode.ImageError(
            f"lung fraction outside {MIN_LUNG_FRACTION} to {MAX_LUNG_FRACTION}: {fraction:.3f}"
        )
    return fraction
