"""Between a film's own size and the square the network sees; nothing is cropped or padded."""

from __future__ import annotations

from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Pixel = TypeVar("Pixel", np.uint8, np.float32)


def resize_film(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A film, uint8 (H, W), as uint8 (size, size); its aspect is given up."""
    return resize(image, size, size)


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A mask, bool (H, W), as bool (size, size): true where lung covers half of a pixel or more.

    The areas are whole numbers of 1 / size² of the mask's pixels, so "half" is exact.
    """
    height, width = mask.shape
    sums = np.asarray(cv2.integral(mask.astype(np.uint8)), dtype=np.int32)
    corners = _at_edges(_at_edges(sums, size).T, size).T
    lung = np.diff(np.diff(corners, axis=0), axis=1)
    return np.asarray(2 * lung >= height * width)


def restore_probabilities(
    probabilities: NDArray[np.float32], height: int, width: int
) -> NDArray[np.float32]:
    """Probabilities, float32 (S, S) in 0..1, at the film's own size, float32 (height, width)."""
    return resize(probabilities, height, width)


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


def _at_edges(sums: NDArray[np.integer[Any]], size: int) -> NDArray[np.int64]:
    """Running sums (n + 1, m) read at the size + 1 edges of new pixels, times size."""
    length = len(sums) - 1
    whole, part = np.divmod(np.arange(size + 1) * length, size)
    before = sums[whole].astype(np.int64)
    after = sums[np.minimum(whole + 1, length)]
    weights = part[:, np.newaxis]
    return np.asarray((size - weights) * before + weights * after, dtype=np.int64)
