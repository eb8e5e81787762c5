"""The black borders that a collimator leaves around a film, and the opening between them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels up to this share of the film's brightest gray are dark.
DARK = 1 / 12
# The percentile of a film taken as its brightest gray, since markers are brighter than any tissue.
BRIGHTEST = 99
# The largest share of lit pixels in a line of a border, due to noise or a small marker.
LIT = 0.02
# The smallest opening, as a share of the film's height and of its width.
SMALLEST_OPENING = 0.5


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right` of an image, both ends exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, down: float, across: float) -> Box:
        """The box in the same image at `down` times its height and `across` times its width."""
        top, bottom = _scale(self.top, self.bottom, down)
        left, right = _scale(self.left, self.right, across)
        return Box(top, left, bottom, right)


def find_opening(film: NDArray[np.uint8]) -> Box:
    """The part of a film, uint8 (H, W), within its black borders; the whole film without borders.

    A border consists of the rows or columns at the film's edge whose pixels are dark except for a
    share of LIT. No lung is cropped: in a chest every row crosses the spine, and every column a
    shoulder or the abdomen. Borders that would leave less than SMALLEST_OPENING are ignored.
    """
    brightest = np.percentile(film[::8, ::8], BRIGHTEST)
    lit = (film > brightest * DARK).view(np.uint8)
    (top, bottom), (left, right) = (_span(_share_lit(lit, axis)) for axis in (1, 0))
    return Box(top, left, bottom, right)


def _share_lit(lit: NDArray[np.uint8], axis: int) -> NDArray[np.float64]:
    """The share of 1 among 0 and 1 in each row (axis 1) or column (axis 0)."""
    sums = cv2.reduce(lit, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    return np.asarray(sums.ravel() / lit.shape[axis])


def _span(share_lit: NDArray[np.float64]) -> tuple[int, int]:
    """(start, stop) of the lines between the borders, or of all lines if they are too few."""
    lit_lines = np.flatnonzero(share_lit > LIT)
    if not len(lit_lines) or lit_lines[-1] + 1 - lit_lines[0] < SMALLEST_OPENING * len(share_lit):
        return 0, len(share_lit)
    return int(lit_lines[0]), int(lit_lines[-1]) + 1


def _scale(start: int, stop: int, factor: float) -> tuple[int, int]:
    first = round(start * factor)
    return first, max(first + 1, round(stop * factor))
