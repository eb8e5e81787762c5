"""Between a film's own size and the square the network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadDataError
from jobs.imaging.area import area_sums
from jobs.imaging.borders import Box, find_opening
from jobs.imaging.decode import MAX_PIXELS

Pixel = TypeVar("Pixel", np.uint8, np.float32)

STRETCH, LETTERBOX = "stretch", "letterbox"
FITS = (STRETCH, LETTERBOX)
# Pixels from which `area_sums` is faster than OpenCV's INTER_AREA: four times as fast for a film of
# 20 million, while one of half a million takes OpenCV a third of the time.
LARGE = 2_500_000
# Pixels of a mask that is resized as float32, which takes 128 MiB; the largest of the public sets
# have 20 million.
MOST_AS_FLOATS = 2**25


@dataclass(frozen=True)
class Placement:
    """Where one film lies in the square, and the way back.

    Attributes:
        height, width: the film's size in pixels.
        crop: the part of the film that is kept.
        size: the square's side in pixels.
        box: the part of the square that the crop fills; the rest is black.
    """

    height: int
    width: int
    crop: Box
    size: int
    box: Box

    def film_to_square(self, film: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A film, uint8 (height, width), as uint8 (size, size)."""
        square = np.zeros((self.size, self.size), np.uint8)
        square[self.box.slices] = resize_film(film[self.crop.slices], *self.box.shape)
        return square

    def mask_to_square(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the film, bool (H, W) of any size, as bool (size, size)."""
        square = np.zeros((self.size, self.size), np.bool_)
        crop = self.at(*mask.shape).crop
        square[self.box.slices] = resize_mask(mask[crop.slices], *self.box.shape)
        return square

    def to_film(self, square: NDArray[Pixel]) -> NDArray[Pixel]:
        """A square (size, size), image or probabilities, as the film (height, width), same dtype.

        Pixels outside the crop are 0.
        """
        part = resize(square[self.box.slices], *self.crop.shape)
        if part.shape == (self.height, self.width):
            return part
        film = np.zeros((self.height, self.width), square.dtype)
        film[self.crop.slices] = part
        return film

    def numbers(self) -> dict[str, Any]:
        """A row's columns: height, width, and crop and box as [top, left, bottom, right]."""
        return {
            "height": self.height,
            "width": self.width,
            "crop": [*astuple(self.crop)],
            "box": [*astuple(self.box)],
        }

    @classmethod
    def of(cls, row: Mapping[str, Any], size: int) -> Placement:
        """The placement of a row that holds `numbers`, in a square of `size`.

        Raises BadDataError for a film too large, or a part that is not within the film or square.
        """
        placement = cls(row["height"], row["width"], Box(*row["crop"]), size, Box(*row["box"]))
        placement._check(Box(0, 0, size, size), placement.box)
        placement._check(Box(0, 0, placement.height, placement.width), placement.crop)
        return placement

    def _check(self, whole: Box, part: Box) -> None:
        sides = (whole.top, part.top, part.bottom, whole.bottom)
        columns = (whole.left, part.left, part.right, whole.right)
        is_within = all(low <= first < last <= high for low, first, last, high in (sides, columns))
        if not is_within or self.height * self.width > MAX_PIXELS:
            raise BadDataError(
                f"a row places {part} of {whole} for a film of {self.width} x {self.height} "
                "pixels, which preprocess does not: run it again with --force"
            )

    def at(self, height: int, width: int) -> Placement:
        """The placement of the same film, or of its mask, at another size (height, width).

        Raises BadDataError for a size that no film has.
        """
        if height * width > MAX_PIXELS:
            raise BadDataError(
                f"a film placed in {self.crop} would have {width} x {height} pixels: run "
                "preprocess again with --force"
            )
        crop = self.crop.scaled(height / self.height, width / self.width)
        return replace(self, height=height, width=width, crop=crop)


@dataclass(frozen=True)
class Placing:
    """How films are placed in the square that a network sees.

    Attributes:
        size: the square's side in pixels.
        fit: "stretch" fills the square and gives up the film's aspect; "letterbox" keeps the
            aspect and centers the film between black bars.
        crop_borders: whether the film's black borders are left out.

    A film that preprocess placed already is placed by `Placing(size)`, at any size of its own: to
    fit or crop it again would take its bars or its dark rim for borders. The network standardizes
    the whole square, bars included.
    """

    size: int
    fit: str = STRETCH
    crop_borders: bool = False

    def place(self, film: NDArray[np.uint8]) -> Placement:
        """Where a film, uint8 (H, W), lies in the square; the same for equal pixels."""
        height, width = film.shape
        crop = find_opening(film) if self.crop_borders else Box(0, 0, height, width)
        square = Box(0, 0, self.size, self.size)
        box = letterbox(*crop.shape, self.size) if self.fit == LETTERBOX else square
        return Placement(height, width, crop, self.size, box)

    def same_fit(self, other: Placing) -> bool:
        """Whether both place a film alike but for the square's size."""
        return (self.fit, self.crop_borders) == (other.fit, other.crop_borders)


def letterbox(height: int, width: int, size: int) -> Box:
    """The largest box of the aspect height / width, to the nearest pixel, amid a square."""
    longer = max(height, width)
    rows, columns = (max(1, round(side * size / longer)) for side in (height, width))
    top, left = (size - rows) // 2, (size - columns) // 2
    return Box(top, left, top + rows, left + columns)


def resize_film(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A film, uint8 (H, W), as uint8 (height, width), each axis as `resize` does it.

    Where it shrinks, each new pixel is the mean over its area, rounded once.
    """
    if image.size < LARGE:
        return resize(image, height, width)
    rows, columns = min(height, image.shape[0]), min(width, image.shape[1])
    shrunk = image
    if (rows, columns) != image.shape:
        means = area_sums(image, rows, columns) / image.size
        shrunk = np.rint(means).astype(np.uint8)
    return resize(shrunk, height, width)


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask, bool (H, W), as bool (height, width): true where lung covers half of a pixel or more.

    The areas are whole numbers, so "half" is exact.
    """
    lung = area_sums(mask.view(np.uint8), height, width)
    return np.asarray(2 * lung >= mask.size)


def resize_lungs(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask, bool (H, W), as bool (height, width): `resize`, then at least half.

    Over MOST_AS_FLOATS it is resized as bytes, which differs where half is met within rounding.
    """
    if mask.size <= MOST_AS_FLOATS:
        return np.asarray(resize(mask.astype(np.float32), height, width) >= 0.5)
    return np.asarray(resize(mask.view(np.uint8) * np.uint8(255), height, width) >= 128)


def resize(image: NDArray[Pixel], height: int, width: int) -> NDArray[Pixel]:
    """An image (H, W) or (H, W, C) at another size, of the same dtype, uint8 or float32.

    Each axis by itself: the mean over the area of a new pixel where it shrinks, linear between the
    centers of pixels where it grows. OpenCV's INTER_AREA turns linear on both if either grows.
    """
    rows, columns = min(height, image.shape[0]), min(width, image.shape[1])
    shrunk = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    resized = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=image.dtype)


def same_aspect(shape: tuple[int, int], other: tuple[int, int], tolerance: float = 0.01) -> bool:
    """Whether two (height, width) have the same ratio, within a relative tolerance."""
    one, two = shape[0] * other[1], shape[1] * other[0]
    return abs(one - two) <= tolerance * min(one, two)
