"""Between a film's own size and the square the network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.imaging.area import area_sums
from jobs.imaging.borders import Box, find_opening

Pixel = TypeVar("Pixel", np.uint8, np.float32)

STRETCH, LETTERBOX = "stretch", "letterbox"
FITS = (STRETCH, LETTERBOX)
LARGE = 2_500_000
"""Pixels from which OpenCV's own mean over areas takes longer than `area_sums`, four times as long
for 20 million; a film of half a million takes it a third of the time."""


@dataclass(frozen=True)
class Placement:
    """Where the part of a film that is kept lies in the square.

    Attributes:
        height, width: the film's own size.
        crop: the part of the film that is kept.
        size: the square's side.
        box: where in the square that part lies; what is left of the square is black.
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
        """What lies in the square (size, size) at the film's own size (height, width).

        Probabilities or an image, float32 or uint8 as they came; 0 where the film was cropped.
        """
        part = resize(square[self.box.slices], *self.crop.shape)
        if part.shape == (self.height, self.width):
            return part
        film = np.zeros((self.height, self.width), square.dtype)
        film[self.crop.slices] = part
        return film

    def numbers(self) -> dict[str, Any]:
        """What a film's row keeps of it: height, width, and crop and box as [top, left, bottom,
        right]."""
        own = {"height": self.height, "width": self.width}
        return own | {"crop": [*astuple(self.crop)], "box": [*astuple(self.box)]}

    @classmethod
    def of(cls, row: Mapping[str, Any], size: int) -> Placement:
        """From `numbers` in a row; one of an earlier version has no boxes: all was stretched."""
        height, width = row["height"], row["width"]
        crop, box = row.get("crop", (0, 0, height, width)), row.get("box", (0, 0, size, size))
        return cls(height, width, Box(*crop), size, Box(*box))

    def at(self, height: int, width: int) -> Placement:
        """The same for the film, or a mask of it, at another size."""
        crop = self.crop.scaled(height / self.height, width / self.width)
        return replace(self, height=height, width=width, crop=crop)


def place(
    film: NDArray[np.uint8], *, size: int, fit: str = STRETCH, crop_borders: bool = False
) -> Placement:
    """Where a film, uint8 (H, W), goes in a square of `size`: the same for the same film.

    "stretch" fills the square and gives up the film's aspect; "letterbox" keeps it and centers the
    film between black bars. With `crop_borders` the film's black borders are left out. A film of
    the square's own size is one that was placed before, or needs it no more: it stays as it is.
    The network standardizes the whole square, bars included.
    """
    height, width = film.shape
    whole, square = Box(0, 0, height, width), Box(0, 0, size, size)
    if (height, width) == (size, size):
        return Placement(height, width, whole, size, square)
    crop = find_opening(film) if crop_borders else whole
    box = letterbox(*crop.shape, size) if fit == LETTERBOX else square
    return Placement(height, width, crop, size, box)


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


def resize(image: NDArray[Pixel], height: int, width: int) -> NDArray[Pixel]:
    """An image (H, W) or (H, W, C) at another size, uint8 or float32 as it came.

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
