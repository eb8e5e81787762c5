"""What decoding a file takes, judged from its header before a decoder allocates anything."""

from __future__ import annotations

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    ROWSPERSTRIP,
    SAMPLESPERPIXEL,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from jobs.imaging.canvas import canvas_of
from jobs.imaging.file_parts import has_several_scans
from jobs.imaging.png import MOST_INFLATED, open_plain

# Bytes for one film: 100 megapixels, or 89 in 16-bit color of a plain PNG, 59 of others.
MOST_BYTES = 2**30
# Bytes that Pillow keeps of a pixel; 4 of the other modes.
PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
# Samples of a pixel, by color type of PNG.
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Values of TIFF's compression.
UNCOMPRESSED, DEFLATE = (1,), (8, 32946)
# Arithmetic coding, whose blocks may have less than a bit: the frames SOF9 and SOF10 of JPEG.
ARITHMETIC = (b"\xff\xc9", b"\xff\xca")


def decoding(image: Image.Image, data: bytes) -> int:
    """Bytes that decoding an opened file takes at its peak, with the samples that it returns."""
    pixels = image.width * image.height
    whole = pixels * PILLOW_BYTES.get(image.mode, 4)
    if canvas := canvas_of(data, image.format):
        return canvas.cost
    bits = bits_per_sample(image, data)
    if isinstance(image, JpegImageFile):
        # All coefficients of a file with several scans are in memory, 2 bytes each.
        coefficients = int(pixels * _full_components(image)) if has_several_scans(data) else 0
        return whole + pixels + 2 * coefficients
    if isinstance(image, BmpImageFile):
        # Pillow inflates run lengths in Python: the pixels, a copy, and up to 256 rows too many.
        return 3 * whole + pixels + 256 * image.width
    buffer = _tiff_buffer(image, bits) if isinstance(image, TiffImageFile) else 0
    if bits > 8:
        # OpenCV reads color after Pillow, whose freed memory is seldom in one piece.
        channels = 0 if image.mode.startswith("I") else max(3, _channels(image, data))
        if channels and not open_plain(data):
            # OpenCV makes room for the pixels twice; a plain PNG is read in strips.
            channels *= 2
        return buffer + whole + 2 * channels * pixels + 2 * pixels
    return buffer + whole + pixels


def may_hold_pixels(image: Image.Image, data: bytes) -> bool:
    """Whether a file has the bytes that its pixels take at the format's best compression."""
    pixels = image.width * image.height
    if isinstance(image, JpegImageFile):
        # A block of 8 x 8 samples has a code of a bit at least.
        return pixels <= 64 * 8 * len(data) or any(frame in data for frame in ARITHMETIC)
    if image.format not in ("PNG", "TIFF"):
        # An empty picture takes some bytes, however large it is.
        return True
    size = pixels * bits_per_sample(image, data) * _channels(image, data) // 8
    if not isinstance(image, TiffImageFile):
        return size <= MOST_INFLATED * len(data)
    compression = image.tag_v2.get(COMPRESSION, 1)
    if compression in UNCOMPRESSED:
        return size <= len(data)
    return compression not in DEFLATE or size <= MOST_INFLATED * len(data)


def bits_per_sample(image: Image.Image, data: bytes) -> int:
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(BITSPERSAMPLE, (1,))))
    # Byte 24 of a PNG is the bit depth in its header.
    return data[24] if image.format == "PNG" else 8


def _channels(image: Image.Image, data: bytes) -> int:
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2.get(SAMPLESPERPIXEL, 1))
    return PNG_CHANNELS.get(data[25], 1)


def _full_components(image: JpegImageFile) -> float:
    """The samples of all components, per pixel: 3 without subsampling, 1.5 with 4:2:0."""
    factors = [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer]
    most = max(h for h, _ in factors) * max(v for _, v in factors)
    return sum(h * v for h, v in factors) / most if most else len(factors)


def _tiff_buffer(image: TiffImageFile, bits: int) -> int:
    """Bytes of a strip or a tile, which is decoded as a whole."""
    tags = image.tag_v2
    width, height = image.width, image.height
    if TILEWIDTH in tags:
        width, height = tags[TILEWIDTH], tags.get(TILELENGTH, 0)
    else:
        height = min(max(width, height), tags.get(ROWSPERSTRIP, height))
    return int(width * height * bits * _channels(image, b"") // 8)
