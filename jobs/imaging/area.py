"""Sums of an image over the areas of larger pixels, exact, in one pass that stays in the cache."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Whole = np.signedinteger[Any]

BLOCK = 2**17
"""Sums worked on at once: a megabyte, which a core's own cache holds."""


def area_sums(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.int64]:
    """The sum of an image (H, W) over each pixel of a grid (height, width), int64.

    In units of 1 / (height * width) of a pixel, of which a pixel of the grid covers H * W, so that
    every share of a pixel is a whole number.
    """
    sums = np.empty((height, width), np.int64)
    rows, row_parts = _edges(image.shape[0], height)
    if 255 * (image.shape[0] + height) < 2**31:
        row_parts = row_parts.astype(np.int32)  # half the memory to go through
    step = max(1, BLOCK // image.shape[1])
    for start in range(0, height, step):
        stop = min(start + step, height)
        edges = slice(start, stop + 1)
        strip = _sum_rows(image, rows[edges], row_parts[edges], height)
        sums[start:stop] = _sum_columns(strip, width)
    return sums


def _edges(length: int, count: int) -> tuple[NDArray[Whole], NDArray[Whole]]:
    """Where `count` equal spans of `length` pixels start and end: whole pixels, and 1 / count."""
    whole, part = np.divmod(np.arange(count + 1, dtype=np.int64) * length, count)
    return whole, part


def _sum_rows(
    image: NDArray[np.uint8], whole: NDArray[Whole], part: NDArray[Whole], unit: int
) -> NDArray[Whole]:
    """Sums (n, W) over the spans between n + 1 edges, times `unit`, of the type of `part`.

    OpenCV adds whole rows at the speed of memory; the parts of rows at the edges are put right.
    """
    sums = np.zeros((len(whole) - 1, image.shape[1]), np.int32)
    for index, (first, last) in enumerate(itertools.pairwise(whole)):
        if first < last:
            row = sums[index : index + 1]
            cv2.reduce(image[first:last], 0, cv2.REDUCE_SUM, row, cv2.CV_32S)
    before = image[np.minimum(whole, len(image) - 1)] * part[:, np.newaxis]
    scaled = sums.astype(part.dtype, copy=False)
    scaled *= unit
    scaled += before[1:]
    scaled -= before[:-1]
    return scaled


def _sum_columns(rows: NDArray[Whole], count: int) -> NDArray[np.int64]:
    """Sums (n, count) over `count` equal spans of the columns of `rows` (n, W), times count."""
    length = rows.shape[1]
    running = np.zeros((len(rows), length + 1), np.int64)
    np.cumsum(rows, axis=1, dtype=np.int64, out=running[:, 1:])
    whole, part = _edges(length, count)
    after = np.minimum(whole + 1, length)
    at_edges = running[:, whole] * (count - part) + running[:, after] * part
    return np.asarray(at_edges[:, 1:] - at_edges[:, :-1])
