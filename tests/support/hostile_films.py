"""The largest films and masks that files below 4 MB can hold, by format."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from jobs.imaging.encode import encode_mask
from tests.support.films import write_montgomery

SIDE = 10_000  # 100 megapixels, the most that is read
LARGEST = 4 * 10**6  # bytes of a hostile file


def black(side: int, mode: str, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, file_format, **options)
    return stream.getvalue()


def deep_color() -> bytes:
    _, packed = cv2.imencode(".png", np.zeros((9_400, 9_400, 3), np.uint16))
    return packed.tobytes()


def skipping_bmp() -> bytes:
    """100 megapixels in 460 bytes: run lengths that skip 255 rows at a time."""
    rows = b"\0\2\0\xff" * 100 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, len(rows), 0, 0, 1, 0)
    return b"BM" + struct.pack("<IHHI", 58 + len(rows), 0, 0, 58) + header + bytes(4) + rows


FILMS: dict[str, Callable[[], bytes]] = {
    "PNG, 100 megapixels": lambda: black(SIDE, "RGB", "PNG"),
    "PNG of 16-bit color, 88 megapixels": deep_color,
    "progressive CMYK JPEG, 100 megapixels": lambda: black(SIDE, "CMYK", "JPEG", progressive=True),
    "deflated TIFF, 100 megapixels": lambda: black(
        SIDE, "RGB", "TIFF", compression="tiff_adobe_deflate"
    ),
    "GIF, 100 megapixels": lambda: black(SIDE, "P", "GIF"),
    "BMP, 100 megapixels in 460 bytes": skipping_bmp,
    "WebP, 53 megapixels": lambda: black(7_280, "RGB", "WEBP", lossless=True, method=0),
    "JPEG 2000, 94 megapixels": lambda: black(9_700, "L", "JPEG2000"),
}


def noisy_lung(left: int) -> bytes:
    """A mask of 100 megapixels of which every second pixel of a half is lung."""
    mask = np.zeros((SIDE, SIDE), np.bool_)
    columns = slice(left, left + SIDE // 2)
    mask[::2, columns][:, ::2] = mask[1::2, columns][:, 1::2] = True
    return encode_mask(mask)


def write_with_hostile(
    folder: Path, count: int, film: bytes, name: str = "MCUCXR_0003_1.png"
) -> None:
    """Write `count` films; one is replaced by `film`, its masks by noise of 100 megapixels."""
    write_montgomery(folder, count)
    root = folder / "Montgomery" / "MontgomerySet"
    (root / "CXR_png" / name).write_bytes(film)
    for left, side in ((0, "leftMask"), (SIDE // 2, "rightMask")):
        (root / "ManualMask" / side / name).write_bytes(noisy_lung(left))
