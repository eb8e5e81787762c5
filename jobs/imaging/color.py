"""What becomes of the colors of a file: one channel of a film, the colors themselves of a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.imaging.full_scale import to_eight_bits

# Pixels of a large image that are converted at a time.
STRIPE = 2**22


class Color(NamedTuple):
    """What becomes of color: for films one channel, for masks BGR uint8 (H, W, 3).

    `image` maps a Pillow image with 8 bits a channel, `bgr` uint8 BGR (H, W, 3), `deep` uint16 BGR
    or BGRA. All give the same values, lest those of a film depend on how its file was written.
    """

    image: Callable[[Image.Image], NDArray[Any]]
    bgr: Callable[[NDArray[Any]], NDArray[Any]]
    deep: Callable[[NDArray[Any]], NDArray[Any]]


def _luma(image: Image.Image) -> NDArray[Any]:
    # Pillow's own luma differs by 1 from OpenCV's for one color in 2000, and for more of a palette.
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2GRAY)


def _luma_of_bgr(pixels: NDArray[Any]) -> NDArray[Any]:
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def _deep_luma(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The luma of uint16 BGR (H, W, 3) or BGRA (H, W, 4), uint8 (H, W).

    Scaled before it is flattened: the luma of a strong blue has three bits less than the film.
    """
    table = to_eight_bits(pixels[:, :, :3])
    code = cv2.COLOR_BGR2GRAY if pixels.shape[2] == 3 else cv2.COLOR_BGRA2GRAY
    luma = np.empty(pixels.shape[:2], np.uint8)
    for stripe in _stripes(pixels):
        luma[stripe] = cv2.cvtColor(cv2.LUT(pixels[stripe], table), code)
    return luma


def _bgr(image: Image.Image) -> NDArray[Any]:
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)


def _high_bytes(pixels: NDArray[Any]) -> NDArray[Any]:
    """BGR uint8 (H, W, 3): the low bytes where no high byte is used."""
    shift = 8 if pixels.max() > 255 else 0
    colors = np.empty((*pixels.shape[:2], 3), np.uint8)
    for stripe in _stripes(pixels):
        # A cast keeps the low byte.
        colors[stripe] = (pixels[stripe, :, :3] >> shift).astype(np.uint8)
    return colors


def _stripes(pixels: NDArray[Any]) -> Iterator[slice]:
    """The rows of a large image in parts of at most STRIPE pixels."""
    rows = max(1, STRIPE // pixels.shape[1])
    return (slice(top, top + rows) for top in range(0, len(pixels), rows))


# ITU-R BT.601 luma for films; masks keep their colors.
LUMA = Color(image=_luma, bgr=_luma_of_bgr, deep=_deep_luma)
COLORS = Color(image=_bgr, bgr=lambda pixels: pixels, deep=_high_bytes)
