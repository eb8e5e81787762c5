"""What an image file is, by its first bytes whatever its name, and why it cannot be read."""

from __future__ import annotations

import struct

from jobs.imaging import tiff_pages

# Pillow's names of the accepted formats, by their first bytes.
ACCEPTED = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)
NAMES = {"WEBP": "WebP", "JPEG2000": "JPEG 2000"}
# Files that are often taken for films, by the bytes that their standards prescribe.
REFUSED = (
    (128, b"DICM", "a DICOM file"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop file"),
    *((4, b"ftyp" + brand, "a HEIC picture") for brand in (b"heic", b"heix", b"hevc", b"mif1")),
    *((4, b"ftyp" + brand, "an AVIF picture") for brand in (b"avif", b"avis")),
    *((0, b"P%d\n" % kind, "a PNM picture") for kind in range(1, 8)),
    *((0, b"P%d " % kind, "a PNM picture") for kind in range(1, 8)),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (344, b"n+1\0", "a NIfTI file"),
    (344, b"ni1\0", "a NIfTI file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\x03\x04", "a zip"),
    (0, b"\x1f\x8b", "a gzip file"),
    (-18, b"TRUEVISION-XFILE.\0", "a TGA picture"),
)
# The starts of a text, in lower case.
TEXTS = ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<svg", "an SVG"))


def kind_of(data: bytes) -> str | None:
    """Pillow's name of an accepted format; None of any other file."""
    if data.startswith(b"RIFF") and data.startswith(b"WEBP", 8):
        return "WEBP"
    return next((kind for start, kind in ACCEPTED if data.startswith(start)), None)


def reason(data: bytes, message: str) -> str:
    """Why a file cannot be read, short and stable, from its bytes and the decoder's message."""
    if not data:
        return "undecodable: an empty file"
    kind = kind_of(data)
    if kind is None:
        name = _refused(data)
        if name:
            return f"undecodable: {name}"
        return "undecodable: not a PNG, JPEG, TIFF, GIF, BMP, WebP or JPEG 2000"
    if "truncated" in message.lower() or _ends_early(data, kind):
        return "truncated"
    return f"undecodable: a damaged or unsupported {NAMES.get(kind, kind)}"


def _refused(data: bytes) -> str:
    """What a file of no accepted format is, "" where that is not certain."""
    for at, start, name in REFUSED:
        if data.startswith(start, at if at >= 0 else max(0, len(data) + at)):
            return name
    text = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for start, name in TEXTS if text.startswith(start)), "")


def _ends_early(data: bytes, kind: str) -> bool:
    """Whether the end of a file is missing, by what its format writes there or says of its size."""
    if kind == "TIFF":
        return tiff_pages.ends_early(data)
    if kind in ("BMP", "WEBP"):
        # The size of the file; WebP's counts from the ninth byte.
        at, more = (2, 0) if kind == "BMP" else (4, 8)
        return len(data) < 26 or len(data) < more + struct.unpack_from("<I", data, at)[0]
    ends = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "JPEG2000": b"\xff\xd9", "GIF": b"\0;"}
    return ends[kind] not in data[-1024:]
