"""Films and masks as PNG, by OpenCV, which encodes 15 times as fast as Pillow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG of an image, uint8 (H, W) or RGB (H, W, 3); the same bytes for the same pixels."""
    assert image.dtype == np.uint8, image.dtype
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return _encoded(cv2.imencode(".png", pixels))


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A 1-bit PNG of a mask, bool (H, W); the same bytes for the same mask."""
    assert mask.dtype == np.bool_, mask.dtype
    # Level 9 takes three to five times as long for five sixths of the size.
    options = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 6]
    return _encoded(cv2.imencode(".png", mask.astype(np.uint8), options))


def _encoded(result: tuple[bool, NDArray[np.uint8]]) -> bytes:
    succeeded, buffer = result
    assert succeeded, "OpenCV could not write a PNG"
    return buffer.tobytes()
