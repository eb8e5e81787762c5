"""Image files to arrays: how the samples of a film or a mask are interpreted.

`png` reads plain PNGs. Pillow decodes all other files, because it refuses truncated ones; of 16-bit
color it keeps the high byte alone, so OpenCV decodes it again.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import (
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    TiffImageFile,
)

from jobs.imaging import (
    decode_cost,
    file_parts,
    formats,
    full_scale,
    mask_values,
    pictures,
    png,
)
from jobs.imaging.canvas import canvas_of
from jobs.imaging.color import COLORS, LUMA, Color
from jobs.imaging.mask_levels import Value
from jobs.imaging.mask_values import Lungs, MaskValuesError

# Pixels; five times the largest film of Montgomery.
MAX_PIXELS = 100_000_000
# Pixels of width or height; the limit of OpenCV's libpng for reading and writing.
LONGEST_SIDE = 1_000_000
# Pixels of a large image that are converted at a time.
STRIPE = 2**22

# Pillow's modes of gray up to 8 bits, of deeper gray, and of color.
GRAY_MODES = ("1", "L", "LA")
DEEP_GRAY_MODES = ("I;16", "I;16B", "I;16L", "I")
COLOR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

# What Pillow raises on damaged bytes; Warning applies where warnings are turned into errors.
FAILURES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    Warning,
)

# Pillow warns at its limit and raises only at twice the limit; _opened checks MAX_PIXELS instead.
Image.MAX_IMAGE_PIXELS = None


class ImageError(ValueError):
    """A file that cannot be used; its message is a short, stable reason for the quarantine list."""


class MaskError(ImageError):
    """A mask that can be read, whose values or shape do not say which pixels are lung."""


def decode_film(data: bytes) -> NDArray[np.uint8]:
    """The luminance of a film, uint8 (H, W) in 0..255, upright by its EXIF orientation.

    Reads the formats of `formats`, of 1 to 16 bits; of a file with several pictures the first.
    Samples of more than 8 bits are scaled from the smallest depth that holds the film without
    markers burned in (`full_scale`), so that a 12-bit film stored in 16 bits is not black. Color
    becomes ITU-R BT.601 luma; alpha is dropped, not composited.

    Raises ImageError: "truncated", "too large: ...", "undecodable: ...".
    """
    samples = _samples(data, LUMA)
    if samples.dtype == np.bool_:
        return np.asarray(samples.view(np.uint8) * np.uint8(255))
    if samples.dtype == np.uint8:
        return np.asarray(samples, dtype=np.uint8)
    return np.asarray(cv2.LUT(samples, full_scale.to_eight_bits(samples)), dtype=np.uint8)


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """The lung pixels of a mask, bool (H, W), upright by its EXIF orientation.

    A pixel is lung if its value is above half of the file's maximum. Masks of 0/1, 0/255, 0/65535
    and 1 bit thus give the same result, and 127 ("ignore") and the ringing of JPEG are not lung.
    The value of a color is its strongest channel; alpha is dropped.

    Raises ImageError as `decode_film` does, and MaskError "several values: ..." and
    "many gray values inside: ...".
    """
    return _lungs(_samples(data, COLORS), ()).pixels


def decode_truth(data: bytes, named: Sequence[Value]) -> Lungs:
    """The lung pixels of a mask that a source gave: those of the `named` values, where there are.

    Raises ImageError as `decode_mask` does, and MaskError "inverted: ..." and "no value of
    --mask-values: ...".
    """
    samples = _samples(data, COLORS)
    lungs = _lungs(samples, named)
    with _mask_errors():
        mask_values.check_not_inverted(samples, lungs.pixels)
    return lungs


def _lungs(samples: NDArray[Any], named: Sequence[Value]) -> Lungs:
    with _mask_errors():
        return mask_values.find_lungs(samples, named)


@contextmanager
def _mask_errors() -> Iterator[None]:
    try:
        yield
    except MaskValuesError as error:
        raise MaskError(str(error)) from error


def decode_rgb(data: bytes, most: int) -> NDArray[np.uint8]:
    """A picture of at most `most` pixels, RGB uint8 (H, W, 3); ImageError as `decode_film`."""
    data = _checked(data)
    image = _opened(data)
    _check_size(image.width, image.height, most)
    _check_cost(image, data)
    with _image_errors(data):
        return np.array(image.convert("RGB"))


def orientation_of(data: bytes) -> int:
    """The EXIF orientation by which the decoders turn a film or a mask upright; 1 without any.

    Raises ImageError as `decode_film` does.
    """
    if formats.kind_of(data) == "PNG" and not png.may_be_turned(data):
        return 1
    data = _checked(data)
    image = _opened(data)
    # Pillow decodes a PNG for the orientation after its pixels.
    _check_cost(image, data)
    with _image_errors(data):
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return orientation if orientation in range(1, 9) else 1


def _samples(data: bytes, color: Color) -> NDArray[Any]:
    """A file upright: bool, uint8 or uint16 (H, W), or what `color` makes of color."""
    data = _checked(data)
    plain = png.open_plain(data)
    if plain and not _excess(plain.width, plain.height):
        if plain.depth == 16:
            _check_cost(_opened(data), data)
        samples = plain.read(color.bgr)
        if samples is not None:
            return color.deep(samples) if plain.depth == 16 else samples
    image = _opened(data)
    _check_cost(image, data)
    with _image_errors(data):
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if plain:
        # The file is intact but has too few rows of pixels; Pillow would leave them black.
        raise ImageError("truncated")
    image.info.pop("transparency", None)
    if decode_cost.bits_per_sample(image, data) > 8 and image.mode in COLOR_MODES:
        return _upright(color.deep(_deep_color(image, data)), orientation)
    if image.mode in GRAY_MODES:
        gray = _by_stripes(image, lambda part: np.array(part.convert("L")))
        return _upright(gray, orientation)
    if image.mode in DEEP_GRAY_MODES:
        return _upright(_deep_gray(image), orientation)
    return _upright(_by_stripes(image, color.image), orientation)


def _opened(data: bytes) -> Image.Image:
    """The image with its header read and its pixels not yet decoded."""
    kind = formats.kind_of(data)
    if kind is None:
        raise ImageError(formats.reason(data, ""))
    size = _check_canvas(data, kind) if kind in ("WEBP", "JPEG2000") else None
    with _image_errors(data):
        image = Image.open(io.BytesIO(data), formats=(kind,))
    _check_size(image.width, image.height)
    if size and size != image.size:
        # The box around a JPEG 2000 gives another size than its pixels' header.
        raise ImageError(formats.reason(data, ""))
    if image.mode == "F":
        raise ImageError("undecodable: floating point pixels have no fixed range")
    if image.mode not in GRAY_MODES + DEEP_GRAY_MODES + COLOR_MODES:
        raise ImageError(f"undecodable: pixels of the kind {image.mode} are not read")
    return image


def _checked(data: bytes) -> bytes:
    """The file with the film alone; ImageError, before Pillow opens it, for too many parts."""
    data = pictures.film_alone(data)
    if excess := file_parts.excess(data):
        raise ImageError(f"too large: {excess}")
    return data


def _check_canvas(data: bytes, kind: str) -> tuple[int, int]:
    """The size by a file's own header; ImageError where its decoder would allocate too much."""
    canvas = canvas_of(data, kind)
    if canvas is None:
        raise ImageError(formats.reason(data, ""))
    _check_size(canvas.width, canvas.height)
    _check_bytes(canvas.cost)
    return canvas.width, canvas.height


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if excess := _excess(width, height, most):
        raise ImageError(f"too large: {width} x {height} pixels are over {excess}")
    if min(width, height) < 1:
        raise ImageError(f"undecodable: {width} x {height} pixels")


def _check_cost(image: Image.Image, data: bytes) -> None:
    """Raise ImageError, before the pixels are decoded, where this would take too much memory."""
    with _image_errors(data):
        if not decode_cost.may_hold_pixels(image, data):
            raise ImageError("truncated")
        needed = decode_cost.decoding(image, data)
    _check_bytes(needed)


def _check_bytes(needed: int) -> None:
    if needed > (most := decode_cost.MOST_BYTES):
        raise ImageError(f"too large: decoding takes {needed // 10**6} MB, over {most // 10**6}")


def working_bytes(data: bytes) -> int:
    """The memory that decoding takes, an estimate in bytes; 0 for a file that is not decoded."""
    try:
        data = _checked(data)
        image = _opened(data)
        with _image_errors(data):
            return decode_cost.decoding(image, data)
    except ImageError:
        return 0


def _by_stripes(image: Image.Image, convert: Callable[[Image.Image], NDArray[Any]]) -> NDArray[Any]:
    """`convert(image)`, which goes by pixels; a large image in parts, which take less memory."""
    rows = max(1, STRIPE // image.width)
    if rows >= image.height:
        return convert(image)
    samples = None
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        part = convert(image.crop((0, top, image.width, bottom)))
        if samples is None:
            samples = np.empty((image.height, *part.shape[1:]), part.dtype)
        samples[top:bottom] = part
    return np.asarray(samples)


def _excess(width: int, height: int, most: int = MAX_PIXELS) -> str:
    """The limit that a size in pixels exceeds, "" if it exceeds none."""
    if width * height > most:
        return f"{most // 1_000_000} megapixels"
    return f"{LONGEST_SIDE} on a side" if max(width, height) > LONGEST_SIDE else ""


@contextmanager
def _image_errors(data: bytes) -> Iterator[None]:
    """Turn what Pillow raises into an ImageError with one of a few stable reasons."""
    try:
        yield
    except FAILURES as error:
        raise ImageError(formats.reason(data, str(error))) from error


def _deep_color(image: Image.Image, data: bytes) -> NDArray[np.uint16]:
    """A file with more than 8 bits a channel, uint16 BGR (H, W, 3) or BGRA (H, W, 4)."""
    planar = isinstance(image, TiffImageFile) and image.tag_v2.get(PLANAR_CONFIGURATION) == 2
    if planar or image.mode not in ("RGB", "RGBA", "RGBX"):
        raise ImageError(f"undecodable: {image.mode} of 16 bits a channel is not read in this form")
    # Pillow has proved that the file is whole; its pixels make room for OpenCV's.
    image.close()
    pixels = png.pixels_only(data) if image.format == "PNG" else data
    if pixels is None:
        raise ImageError(formats.reason(data, "not read by OpenCV"))
    samples = cv2.imdecode(np.frombuffer(pixels, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ImageError(formats.reason(data, "not read by OpenCV"))
    return np.asarray(samples, dtype=np.uint16)


def _deep_gray(image: Image.Image) -> NDArray[np.uint16]:
    """The samples of a gray file with 9 to 16 bits, uint16 (H, W), high for white."""
    samples = _by_stripes(image, _sixteen_bits)
    white_is_zero = isinstance(image, TiffImageFile) and (
        image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    )
    if not white_is_zero:
        return samples
    # Pillow inverts such a file at 8 bits, but not at 16.
    limit = full_scale.full_scale(samples)
    return np.asarray(limit - np.minimum(samples, limit), dtype=np.uint16)


def _sixteen_bits(image: Image.Image) -> NDArray[np.uint16]:
    pixels = np.array(image)
    if pixels.min() < 0 or pixels.max() >= 2**16:
        raise ImageError("undecodable: gray values outside 0 to 65535")
    return pixels.astype(np.uint16, copy=False)


def _upright(pixels: NDArray[np.integer[Any]], orientation: int) -> NDArray[np.integer[Any]]:
    """Undo an EXIF orientation, 1 to 8 (CIPA DC-008, tag 274); other values count as upright."""
    if orientation not in range(1, 9):
        return pixels
    turned = np.swapaxes(pixels, 0, 1) if orientation > 4 else pixels
    rows, columns = ((1, 1), (1, -1), (-1, -1), (-1, 1))[(orientation - 1) % 4]
    return np.ascontiguousarray(turned[::rows, ::columns])
