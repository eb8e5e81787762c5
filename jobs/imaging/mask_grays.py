"""Whether a mask has many gray values inside, as a film does that is cut out by its mask.

Cut at half of its maximum, such a mask has holes where the film is dark. The gray values along an
edge, which resizing, blurring and JPEG leave, are none: they lie within the edges' band, whose
width the mask's own edges tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.imaging.mask_levels import RINGING, SMALLEST_LEVEL, thinned

# Values this close to the darkest and to the brightest one, as a share of the range, are background
# and lung.
CLOSE = 0.1
# The edges' band is a JPEG's block with its ringing at least, in pixels, and two pixels of a mask
# that was enlarged from 64, as a part of the shorter side. An edge that takes w from the background
# to a quarter of the range (of the tenth of the edges that is the sharpest) takes 3.4 w to the
# lung's values where it is blurred, twice that between two lungs. No edge is wider than a part of
# the side; in a film nothing is background.
NARROWEST, NARROW, WIDTHS, SHARPEST, WIDEST = 10, 32, 7, 10, 8
BOX = np.ones((3, 3), np.uint8)


class Grays(NamedTuple):
    """Gray values inside a mask: the darkest and brightest one, and their share of the frame."""

    darkest: int
    brightest: int
    share: float


def find_grays(gray: NDArray[Any], levels: Sequence[int] = ()) -> Grays | None:
    """The gray values of a mask, uint8 or uint16 (H, W), away from its edges; None where few.

    Values near one of `levels` are not counted.
    """
    gray = thinned(gray)
    smallest = SMALLEST_LEVEL * gray.size
    low, high = int(gray.min()), int(gray.max())
    close = math.ceil(CLOSE * (high - low))
    is_between = _in_range(gray, low + close, high - close)
    if cv2.countNonZero(is_between) <= smallest:
        return None
    slack = math.ceil(RINGING * (high - low))
    for level in levels:
        is_between &= ~_in_range(gray, level - slack, level + slack)
    # Lines and the rims of sharp edges vanish.
    is_between = np.asarray(cv2.erode(is_between, BOX), np.uint8)
    if cv2.countNonZero(is_between) <= smallest:
        return None
    to_low = _distances(_in_range(gray, low, low + close))
    to_high = _distances(_in_range(gray, high - close, high))
    side = min(gray.shape)
    width = min(_edge_width(gray >= low + (high - low) / 4, to_low), side / WIDEST)
    band = max(NARROWEST, side / NARROW, WIDTHS * width)
    values = gray[(is_between > 0) & ((to_low > band) | (to_high > band))]
    if values.size <= smallest:
        return None
    return Grays(int(values.min()), int(values.max()), values.size / gray.size)


def _in_range(gray: NDArray[Any], darkest: int, brightest: int) -> NDArray[np.uint8]:
    """The pixels from `darkest` to `brightest`, uint8 0 or 255 (H, W)."""
    return np.asarray(cv2.inRange(gray, np.array(darkest), np.array(brightest)), np.uint8)


def _distances(part: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The distance of each pixel to the nearest area of a part, without its specks, in pixels.

    Very large where the part has no area.
    """
    areas = np.asarray(cv2.morphologyEx(part, cv2.MORPH_OPEN, BOX), np.uint8)
    return np.asarray(cv2.distanceTransform(~areas, cv2.DIST_L2, 3), np.float32)


def _edge_width(is_bright: NDArray[np.bool_], to_low: NDArray[np.float32]) -> float:
    """The distance from the background to the bright pixels at the sharpest edges, in pixels."""
    bright = is_bright.view(np.uint8)
    rim = (bright - cv2.erode(bright, BOX)).view(np.bool_)
    return float(np.percentile(to_low[rim], SHARPEST)) if rim.any() else 0.0
