"""Whether a mask has the shape of lungs, judged on a coarse copy: two of them, side by side."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels of a coarse copy's shorter side, at least, where the mask has as many.
COARSE = 128

# Share of the rim that an inverted mask fills, corners that it fills, and the share of the frame
# above which a hole in it is a lung. Lungs that reach the film's rim fill up to this share of it.
FILLED_RIM, FILLED_CORNERS, SMALLEST_HOLE, OPEN_RIM = 0.5, 3, 0.01, 0.25
# Share of an inverted mask in parts that reach its rim, unlike lungs within a drawn frame.
REACHING_RIM = 0.6
# Lungs have no two closed holes of this share of the frame; a trunk without its lungs has.
LARGE_HOLE = 0.03

# The 634 masks of children and adults that were measured cover 0.19 to 0.61 of the film, in two
# parts with 0.36 or more of their area on either side of the midline and their center at 0.32 to
# 0.60 of the height; masks of adults cover 0.1 where a film has wide borders.
AREA = (0.05, 0.70)
CENTER = (0.25, 0.75)
SMALLER_SIDE = 0.2
# Share of a mask's area from which a part counts, and how many may count: a device or a fluid
# level divides a lung.
COUNTED_PART, MOST_PARTS = 0.1, 4
# A mask in one part is lungs that touch where it fills at most this share of its convex hull. Those
# 634 masks fill up to 0.79, 0.87 after closing the gap between the lungs; a single lung, a heart
# or a trunk fills 0.84 to 1.
SOLID = 0.88


def is_inverted(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask, bool (H, W), is background with lungs as holes in it.

    It fills the film's corners and most of its rim around the holes, of which the outer ones may
    reach the rim; or, where the film has a border or bars, the rim of a box around closed holes; or
    it is a trunk with two large holes.
    """
    coarse = _coarse(mask)
    if not coarse.any():
        return False
    return (
        _surrounds_holes(coarse, FILLED_CORNERS, OPEN_RIM)
        or _surrounds_holes(_boxed(coarse), 0, 0.0)
        or _closed_holes(coarse) >= 2
    )


def unlike_lungs(mask: NDArray[np.bool_]) -> str:
    """Why a film's merged mask, bool (H, W), looks unlike lungs; "" where it looks like them."""
    coarse = _coarse(mask)
    area = coarse.mean()
    if not AREA[0] <= area <= AREA[1]:
        return "too small or too large"
    height, width = coarse.shape
    center = coarse.sum(axis=1) @ (np.arange(height) + 0.5) / coarse.sum() / height
    if not CENTER[0] <= center <= CENTER[1]:
        return "too high or too low"
    left = coarse[:, : width // 2].sum() / coarse.sum()
    if min(left, 1 - left) < SMALLER_SIDE:
        return "on one side"
    parts = _large_parts(coarse)
    if not 1 <= parts <= MOST_PARTS or (parts == 1 and _solidity(coarse) > SOLID):
        return "one part or too many"
    return ""


def share_of_rim(mask: NDArray[np.bool_]) -> float:
    """The share, 0..1, of the film's rim that a mask, bool (H, W), covers."""
    return float(_rim(_coarse(mask)).mean())


def _coarse(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    step = max(1, min(mask.shape) // COARSE)
    size = -(-mask.shape[1] // step), -(-mask.shape[0] // step)
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST) > 0)


def _boxed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The smallest box that holds all of a mask."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return np.ascontiguousarray(mask[top : top + height, left : left + width])


def _rim(mask: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])


def _surrounds_holes(mask: NDArray[np.bool_], corners: int, open_rim: float) -> bool:
    """Whether a mask fills its rim, `corners` of its corners, and has large holes in it.

    The holes may take `open_rim` of the rim, and no corner.
    """
    if _rim(mask).mean() < FILLED_RIM or mask[[0, 0, -1, -1], [0, -1, 0, -1]].sum() < corners:
        return False
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    reaching = np.setdiff1d(_rim(labels), [0])
    if stats[reaching, cv2.CC_STAT_AREA].sum() < REACHING_RIM * np.count_nonzero(mask):
        return False
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=4)
    holes = stats[:, cv2.CC_STAT_AREA] >= SMALLEST_HOLE * mask.size
    holes[0] = False
    holes[labels[[0, 0, -1, -1], [0, -1, 0, -1]]] = False
    return bool(holes.any()) and float(_rim(holes[labels]).mean()) <= open_rim


def _closed_holes(mask: NDArray[np.bool_]) -> int:
    """How many large holes a mask has that do not reach the rim."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=4)
    is_hole = stats[:, cv2.CC_STAT_AREA] >= LARGE_HOLE * mask.size
    is_hole[0] = False
    is_hole[_rim(labels)] = False
    return int(np.count_nonzero(is_hole))


def _large_parts(mask: NDArray[np.bool_]) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int(np.count_nonzero(areas >= COUNTED_PART * areas.sum()))


def _solidity(mask: NDArray[np.bool_]) -> float:
    """The share of its convex hull that a mask fills."""
    hull = np.zeros(mask.shape, np.uint8)
    points = cv2.findNonZero(mask.view(np.uint8))
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return float(np.count_nonzero(mask) / np.count_nonzero(hull))
