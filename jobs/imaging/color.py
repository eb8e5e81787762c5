"""What becomes of the colors of a file: one channel of a film, the colors themselves of a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Color(NamedTuple):
    """What becomes of color: for films one channel, for masks BGR uint8 (H, W, 3).

    `image` maps a Pillow image with 8 bits a channel, `bgr` uint8 BGR (H, W, 3), `deep` uint16 BGR
    or BGRA.
    """

    image: Callable[[Image.Image], NDArray[Any]]
    bgr: Callable[[NDArray[Any]], NDArray[Any]]
    deep: Callable[[NDArray[Any]], NDArray[Any]]


def _luma(image: Image.Image) -> NDArray[Any]:
    return np.array(image.convert("L"))


def _luma_of_bgr(pixels: NDArray[Any]) -> NDArray[Any]:
    is_opaque = pixels.shape[2] == 3
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if is_opaque else cv2.COLOR_BGRA2GRAY)


def _bgr(image: Image.Image) -> NDArray[Any]:
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)


def _high_bytes(pixels: NDArray[Any]) -> NDArray[Any]:
    """BGR uint8 (H, W, 3): the low bytes where no high byte is used."""
    shift = 8 if pixels.max() > 255 else 0
    return np.dstack([(pixels[:, :, channel] >> shift).astype(np.uint8) for channel in range(3)])


# ITU-R BT.601 luma for films; masks keep their colors.
LUMA = Color(image=_luma, bgr=_luma_of_bgr, deep=_luma_of_bgr)
COLORS = Color(image=_bgr, bgr=lambda pixels: pixels, deep=_high_bytes)
