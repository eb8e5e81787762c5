"""Image files written byte by byte from their standards, for the tests of decoding."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (37, 53)).astype(np.uint8)
COLOR = np.dstack([NOISE, NOISE[::-1], NOISE[:, ::-1]])
LUMA = COLOR @ np.array([0.299, 0.587, 0.114])
# A mask's gray values are close to black or white, and so are its colors.
MASK = np.where(NOISE > 127, 235 + NOISE // 13, NOISE // 13).astype(np.uint8)
COLOR_MASK = np.dstack([MASK, MASK ^ 1, MASK ^ 6])
# Color types of the PNG standard.
GRAY_PNG, RGB_PNG, LA_PNG, RGBA_PNG = 0, 2, 4, 6


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth: int, color: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def png(samples: NDArray[Any], color: int, extra: bytes = b"") -> bytes:
    """A PNG of uint8 or uint16 samples, with `extra` chunks before its pixels."""
    height, width = samples.shape[:2]
    rows = samples.astype(samples.dtype.newbyteorder(">"))
    packed = b"".join(b"\0" + row.tobytes() for row in rows)
    header = png_header(width, height, samples.dtype.itemsize * 8, color)
    return header + extra + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")


def png_orientation(orientation: int) -> bytes:
    return chunk(b"eXIf", exif(orientation).tobytes()[6:])


def tiff(
    samples: NDArray[Any], photometric: int, *, orientation: int = 1, planar: int = 1
) -> bytes:
    """An uncompressed little-endian TIFF with one strip per plane; every field is of type LONG."""
    height, width, channels = (*samples.shape, 1)[:3]
    planes = channels if planar == 2 else 1
    pixels = (np.moveaxis(samples, 2, 0) if planar == 2 else samples).tobytes()
    strip = len(pixels) // planes
    fields = {
        256: [width],
        257: [height],
        258: [samples.dtype.itemsize * 8] * channels,
        259: [1],
        262: [photometric],
        273: [0] * planes,
        274: [orientation],
        277: [channels],
        278: [height],
        279: [strip] * planes,
        284: [planar],
    }
    lists_offset = 8 + 2 + 12 * len(fields) + 4
    list_lengths = [len(values) for values in fields.values() if len(values) > 1]
    pixels_offset = lists_offset + 4 * sum(list_lengths)
    fields[273] = [pixels_offset + plane * strip for plane in range(planes)]
    entries = lists = b""
    for tag, values in fields.items():
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            # A field with several values holds their offset.
            packed, lists = struct.pack("<I", lists_offset + len(lists)), lists + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + lists + pixels


def saved(image: Image.Image | NDArray[Any], file_format: str, **options: Any) -> bytes:
    """A file as Pillow writes it."""
    buffer = io.BytesIO()
    pillow = image if isinstance(image, Image.Image) else Image.fromarray(image)
    pillow.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags
