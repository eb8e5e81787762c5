"""Exact sums of an image over the areas of larger pixels, in one pass that stays in the cache."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Whole = np.signedinteger[Any]

# Sums computed at a time: one megabyte, which fits the cache of a core.
BLOCK = 2**17


def area_sums(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.int64]:
    """The sums of an image, uint8 (H, W), over the cells of a grid, int64 (height, width).

    The unit of area is 1 / (height * width) of an image pixel; a cell covers H * W of these units,
    so every share of a pixel is an integer.
    """
    sums = np.empty((height, width), np.int64)
    rows, row_parts = _edges(image.shape[0], height)
    if 255 * (image.shape[0] + height) < 2**31:
        # Half the memory traffic of int64.
        row_parts = row_parts.astype(np.int32)
    step = max(1, BLOCK // image.shape[1])
    for start in range(0, height, step):
        stop = min(start + step, height)
        edges = slice(start, stop + 1)
        strip = _sum_rows(image, rows[edges], row_parts[edges], height)
        sums[start:stop] = _sum_columns(strip, width)
    return sums


def _edges(length: int, count: int) -> tuple[NDArray[Whole], NDArray[Whole]]:
    """The edges of `count` equal spans over `length` pixels: whole pixels, and a rest in 1 / count.

    Both are int64 (count + 1,).
    """
    whole, part = np.divmod(np.arange(count + 1, dtype=np.int64) * length, count)
    return whole, part


def _sum_rows(
    image: NDArray[np.uint8], whole: NDArray[Whole], part: NDArray[Whole], unit: int
) -> NDArray[Whole]:
    """Sums (n, W) over the spans between n + 1 edges, times `unit`, of the type of `part`.

    OpenCV adds whole rows at the speed of memory; the parts of rows at the edges are corrected
    after that.
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
    """Sums (n, count) over `count` equal spans of the columns of `rows` (n, W), times `count`."""
    length = rows.shape[1]
    # The sum up to an edge is a running sum; the sum of a span is a difference of two.
    running = np.zeros((len(rows), length + 1), np.int64)
    np.cumsum(rows, axis=1, dtype=np.int64, out=running[:, 1:])
    whole, part = _edges(length, count)
    after = np.minimum(whole + 1, length)
    at_edges = running[:, whole] * (count - part) + running[:, after] * part
    return np.asarray(at_edges[:, 1:] - at_edges[:, :-1])
