"""Image files in, arrays out and back: what a film or a mask on disk means.

Plain PNGs take the short way of `png`. Pillow decodes all others, because it refuses a file
that ends early; OpenCV reads what Pillow cannot (color of 16 bits a channel, of which Pillow keeps
the high byte) and writes PNG at a fifteenth of the cost.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    TiffImageFile,
)

from jobs.imaging import png

MAX_PIXELS = 100_000_000
"""The largest film read, in pixels: five times the largest film of Montgomery."""

LONGEST_SIDE = 1_000_000
"""The largest width and height, in pixels: OpenCV's libpng neither reads nor writes more."""

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Bits a detector delivers; what is stored in 16 bits has one of these."""

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
"""First bytes of the files accepted."""

GRAY_MODES = ("1", "L", "LA")
DEEP_GRAY_MODES = ("I;16", "I;16B", "I;16L", "I")
COLOR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

# What Pillow's readers raise on damaged bytes; a warning is raised only where warnings are errors.
FAILURES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
    Warning,
)

# Pillow's own limit warns first and raises at twice its value: MAX_PIXELS is checked here instead.
Image.MAX_IMAGE_PIXELS = None


class Flatten(NamedTuple):
    """From color of 8 bits to one channel: an image to an "L", BGR (H, W, 3) to (H, W)."""

    image: Callable[[Image.Image], Image.Image]
    bgr: Callable[[NDArray[Any]], NDArray[Any]]


LUMA = Flatten(
    image=lambda image: image.convert("L"),
    bgr=lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY),
)
STRONGEST = Flatten(
    image=lambda image: functools.reduce(ImageChops.lighter, image.convert("RGB").split()),
    bgr=lambda pixels: functools.reduce(cv2.max, cv2.split(pixels)),
)


class ImageError(ValueError):
    """A file that cannot be used; the message is short, stable and fit for a quarantine list."""


def decode_film(data: bytes) -> NDArray[np.uint8]:
    """The luminance of a film, uint8 (H, W) in 0..255, upright by its EXIF orientation.

    Reads PNG, JPEG and TIFF (its first page) of 1 to 16 bits. Deeper than 8 bits is scaled from the
    smallest of BIT_DEPTHS that holds the film's maximum, so a 12-bit film stored in 16 bits is not
    black. Color becomes ITU-R BT.601 luma; alpha is dropped, not composited.

    Raises ImageError: "truncated", "too large: ...", "undecodable: ...".
    """
    samples = _samples(data, LUMA)
    if samples.dtype == np.bool_:
        return np.asarray(samples.view(np.uint8) * np.uint8(255))
    if samples.dtype == np.uint8:
        return np.asarray(samples, dtype=np.uint8)
    limit = _full_scale(samples)
    table = np.zeros(2**16, np.uint8)
    table[: limit + 1] = np.round(np.arange(limit + 1) * (255 / limit))
    return np.asarray(cv2.LUT(samples, table), dtype=np.uint8)


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Where a mask shows lung, bool (H, W), upright by its EXIF orientation.

    Lung is what lies above half of the file's own maximum: 0/1, 0/255, 0/65535 and 1-bit masks all
    read alike, while 127 ("ignore") and the ringing of JPEG are not lung. A colored mask counts by
    its strongest channel, so lungs painted red and blue are both lung; alpha is dropped.

    Raises ImageError as `decode_film` does.
    """
    samples = _samples(data, STRONGEST)
    if samples.dtype == np.bool_:
        return np.asarray(samples, dtype=np.bool_)
    return np.asarray(samples > samples.max() // 2)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG of an image, uint8 (H, W) or RGB (H, W, 3); the same bytes for the same pixels."""
    assert image.dtype == np.uint8, image.dtype
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return _written(cv2.imencode(".png", pixels))


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A 1-bit PNG of a mask, bool (H, W); the same bytes for the same mask."""
    assert mask.dtype == np.bool_, mask.dtype
    # Level 9 would take three to five times as long for five sixths of the size.
    options = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 6]
    return _written(cv2.imencode(".png", mask.astype(np.uint8), options))


def _written(encoded: tuple[bool, NDArray[np.uint8]]) -> bytes:
    succeeded, buffer = encoded
    assert succeeded, "OpenCV could not write a PNG"
    return buffer.tobytes()


def _samples(data: bytes, flatten: Flatten) -> NDArray[Any]:
    """One upright channel of a file, bool, uint8 or uint16 (H, W)."""
    plain = png.open_plain(data)
    if plain and not _excess(plain.width, plain.height):
        samples = plain.read()
        if samples is not None:
            return samples if samples.ndim == 2 else flatten.bgr(samples)
    image = _opened(data)
    with _failures_named(data):
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if plain:
        # Pillow leaves rows black that a well-packed file does not have.
        raise ImageError("truncated")
    image.info.pop("transparency", None)
    if _bits_per_channel(image, data) > 8 and image.mode in COLOR_MODES:
        return _upright(_deep_luminance(image, data), orientation)
    if image.mode in GRAY_MODES:
        return _upright(np.array(image.convert("L")), orientation)
    if image.mode in DEEP_GRAY_MODES:
        return _upright(_deep_gray(image), orientation)
    return _upright(np.array(flatten.image(image)), orientation)


def _opened(data: bytes) -> Image.Image:
    """The file's header read, its pixels not yet."""
    with _failures_named(data):
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF"))
    if excess := _excess(*image.size):
        raise ImageError("too large: {} x {} pixels are over {}".format(*image.size, excess))
    if image.mode == "F":
        raise ImageError("undecodable: floating point pixels have no fixed range")
    if image.mode not in GRAY_MODES + DEEP_GRAY_MODES + COLOR_MODES:
        raise ImageError(f"undecodable: pixels of the kind {image.mode} are not read")
    return image


def _excess(width: int, height: int) -> str:
    """The limit that a size in pixels is over, "" where it is over none."""
    if width * height > MAX_PIXELS:
        return f"{MAX_PIXELS // 1_000_000} megapixels"
    return f"{LONGEST_SIDE} on a side" if max(width, height) > LONGEST_SIDE else ""


@contextmanager
def _failures_named(data: bytes) -> Iterator[None]:
    """Turn what Pillow raises into an ImageError with a reason that is the same every time."""
    try:
        yield
    except FAILURES as error:
        raise ImageError(_reason(data, str(error))) from error


def _reason(data: bytes, said: str) -> str:
    """Why a file cannot be read, from its bytes and what the decoder said."""
    kind = next((name for start, name in SIGNATURES.items() if data.startswith(start)), None)
    if not data:
        return "undecodable: an empty file"
    if kind is None:
        return "undecodable: not a PNG, JPEG or TIFF"
    if "truncated" in said.lower() or _ends_early(data, kind):
        return "truncated"
    return f"undecodable: a damaged or unsupported {kind}"


def _ends_early(data: bytes, kind: str) -> bool:
    """Whether the last part is missing: PNG's IEND, JPEG's EOI, TIFF's first directory.

    Most programs write a TIFF's directory behind its pixels, where a cut takes it first.
    """
    if kind != "TIFF":
        return {"PNG": b"IEND", "JPEG": b"\xff\xd9"}[kind] not in data[-1024:]
    order = "<" if data.startswith(b"II") else ">"
    try:
        (directory,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, directory)
    except struct.error:
        return True
    return bool(directory + 2 + 12 * entries > len(data))


def _bits_per_channel(image: Image.Image, data: bytes) -> int:
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(BITSPERSAMPLE, (1,))))
    return data[24] if image.format == "PNG" else 8


def _deep_luminance(image: Image.Image, data: bytes) -> NDArray[np.uint16]:
    """The luma of a file with more than 8 bits a channel, uint16 (H, W)."""
    planar = isinstance(image, TiffImageFile) and image.tag_v2.get(PLANAR_CONFIGURATION) == 2
    if planar or image.mode not in ("RGB", "RGBA", "RGBX"):
        raise ImageError(f"undecodable: {image.mode} of 16 bits a channel is not read in this form")
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ImageError(_reason(data, "not read by OpenCV"))
    code = cv2.COLOR_BGR2GRAY if samples.shape[2] == 3 else cv2.COLOR_BGRA2GRAY
    return np.asarray(cv2.cvtColor(samples, code), dtype=np.uint16)


def _deep_gray(image: Image.Image) -> NDArray[np.uint16]:
    """The pixels of a gray file with 9 to 16 bits, uint16 (H, W), white high."""
    pixels = np.array(image)
    if pixels.min() < 0 or pixels.max() >= 2**16:
        raise ImageError("undecodable: gray values outside 0 to 65535")
    samples = pixels.astype(np.uint16, copy=False)
    white_is_zero = isinstance(image, TiffImageFile) and (
        image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    )
    # Pillow turns such a file the right way round at 8 bits, but not deeper.
    return (_full_scale(samples) - samples).astype(np.uint16) if white_is_zero else samples


def _full_scale(samples: NDArray[np.integer[Any]]) -> int:
    """The largest value of the smallest of BIT_DEPTHS that holds the samples."""
    maximum = int(samples.max())
    return int(next(2**bits - 1 for bits in BIT_DEPTHS if maximum < 2**bits))


def _upright(pixels: NDArray[np.integer[Any]], orientation: int) -> NDArray[np.integer[Any]]:
    """Undo an EXIF orientation, 1 to 8 (CIPA DC-008, tag 274); any other value means upright."""
    if orientation not in range(1, 9):
        return pixels
    turned = pixels.T if orientation > 4 else pixels
    rows, columns = ((1, 1), (1, -1), (-1, -1), (-1, 1))[(orientation - 1) % 4]
    return np.ascontiguousarray(turned[::rows, ::columns])
