"""The black frame that a collimator leaves around a film, and what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

DARK = 1 / 12
"""The share of a film's brightest grey below which a pixel is as dark as a border."""

BRIGHTEST = 99
"""Which percentile of a film counts as its brightest grey: markers are brighter than any tissue."""

LIT = 0.02
"""The share of its pixels that a row of a border may have lit: by noise, or by a small marker."""

LEAST_KEPT = 0.5
"""The least part of a film's height, and of its width, that may be the opening."""


@dataclass(frozen=True)
class Box:
    """Rows top to bottom and columns left to right of an image, the last ones not included."""

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
        """The box in the image at `down` times its height and `across` times its width."""
        top, bottom = _scale(self.top, self.bottom, down)
        left, right = _scale(self.left, self.right, across)
        return Box(top, left, bottom, right)


def find_opening(film: NDArray[np.uint8]) -> Box:
    """The part of a film, uint8 (H, W), within its black borders; the whole where it has none.

    A row or column belongs to a border where all of it, but for LIT, is dark, and so do all those
    beyond it. Through a chest every row crosses the spine and every column a shoulder or the
    belly, so that lung is never left out. What would leave less than LEAST_KEPT is no border.
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
    """From the first line that is no border to behind the last, or all lines."""
    lines = np.flatnonzero(share_lit > LIT)
    if not len(lines) or lines[-1] + 1 - lines[0] < LEAST_KEPT * len(share_lit):
        return 0, len(share_lit)
    return int(lines[0]), int(lines[-1]) + 1


def _scale(start: int, stop: int, factor: float) -> tuple[int, int]:
    first = round(start * factor)
    return first, max(first + 1, round(stop * factor))
