"""Files that cannot be used are refused, each with one of a few stable reasons."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from jobs.imaging.decode import ImageError, decode_film, decode_mask, decode_rgb
from tests.support.image_files import (
    COLOR,
    GRAY_PNG,
    NOISE,
    RGB_PNG,
    chunk,
    png,
    png_header,
    saved,
)


def reason(data: bytes) -> str:
    """The reason for which a file is refused, both as a film and as a mask."""
    with pytest.raises(ImageError) as caught:
        decode_film(data)
    with pytest.raises(ImageError) as caught_as_mask:
        decode_mask(data)
    assert str(caught.value) == str(caught_as_mask.value)
    return str(caught.value)


def outcome(data: bytes) -> str:
    """The reason for which a film is refused, or "read"."""
    try:
        decode_film(data)
    except ImageError as error:
        return str(error)
    return "read"


def test_a_film_over_a_hundred_megapixels_is_refused_before_it_is_decoded() -> None:
    bomb = png_header(10_000, 10_001, 8, GRAY_PNG) + chunk(b"IDAT", zlib.compress(b""))
    assert reason(bomb) == "too large: 10000 x 10001 pixels are over 100 megapixels"


def test_a_film_of_a_hundred_megapixels_is_not_too_large() -> None:
    assert reason(png_header(10_000, 10_000, 8, GRAY_PNG)) == "truncated"


@pytest.mark.parametrize("shape", [(1, 1_000_001), (1_000_001, 1)])
@pytest.mark.parametrize("depth", [bool, np.uint8, np.uint16])
def test_a_side_longer_than_a_png_may_have_is_refused(shape: tuple[int, int], depth: type) -> None:
    height, width = shape
    expected = f"too large: {width} x {height} pixels are over 1000000 on a side"
    film = np.ones(shape, np.dtype(depth))
    assert reason(saved(film, "PNG")) == reason(saved(film, "TIFF")) == expected


def test_a_side_of_a_million_pixels_is_not_too_large() -> None:
    film = np.ones((1, 1_000_000), np.uint8)
    assert np.array_equal(decode_film(saved(film, "PNG")), film)


def test_floating_point_negative_and_wider_pixels_are_refused() -> None:
    assert reason(saved(NOISE.astype(np.float32), "TIFF")).startswith("undecodable: floating point")
    outside = "undecodable: gray values outside 0 to 65535"
    assert reason(saved(NOISE.astype(np.int32) - 1, "TIFF")) == outside
    assert reason(saved(NOISE.astype(np.int32) + 2**16, "TIFF")) == outside


def test_colors_without_a_defined_luma_are_refused() -> None:
    assert reason(saved(Image.new("LAB", (5, 4)), "TIFF")).startswith("undecodable: pixels of")


WHOLE = {
    "png": png(NOISE, GRAY_PNG),
    "deep color png": png(COLOR.astype(np.uint16) * 257, RGB_PNG),
    "jpeg": saved(NOISE, "JPEG"),
    "progressive jpeg": saved(COLOR, "JPEG", progressive=True),
    "tiff": saved(NOISE, "TIFF"),
    "lzw tiff": saved(NOISE, "TIFF", compression="tiff_lzw"),
    "tiff by another writer": cv2.imencode(".tif", NOISE)[1].tobytes(),
    "gif": saved(NOISE, "GIF"),
    "bmp": saved(NOISE, "BMP"),
    "webp": saved(NOISE, "WEBP", lossless=True),
    "lossy webp": saved(COLOR, "WEBP"),
    "jp2": saved(NOISE, "JPEG2000"),
    "deep jp2": saved(NOISE.astype(np.uint16) * 257, "JPEG2000"),
    "jpeg 2000 codestream": saved(NOISE, "JPEG2000", no_jp2=True),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("part", [0.05, 0.3, 0.5, 0.9, 0.97])
def test_a_truncated_film_is_refused_as_truncated(kind: str, part: float) -> None:
    assert reason(WHOLE[kind][: int(len(WHOLE[kind]) * part)]) == "truncated"


@pytest.mark.parametrize("kind", WHOLE)
def test_a_film_cut_anywhere_is_refused_or_decoded_whole(kind: str) -> None:
    whole = decode_film(WHOLE[kind])
    for length in range(0, len(WHOLE[kind]), 97):
        try:
            film = decode_film(WHOLE[kind][:length])
        except ImageError:
            continue
        assert np.array_equal(film, whole), length


NO_PICTURE = "undecodable: not a PNG, JPEG, TIFF, GIF, BMP, WebP or JPEG 2000"


@pytest.mark.parametrize("data", [b"lungs", bytes(999), b"RIFF\0\0\0\0WAVE", b"DICM"])
def test_a_file_of_another_format_is_refused(data: bytes) -> None:
    assert reason(data) == NO_PICTURE


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (bytes(128) + b"DICM" + bytes(99), "a DICOM file"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0\0\0\x1cftypheic" + bytes(99), "a HEIC picture"),
        (b"\0\0\0\x1cftypavif" + bytes(99), "an AVIF picture"),
        (b"8BPS\0\1" + bytes(99), "a Photoshop file"),
        (saved(NOISE, "PPM"), "a PNM picture"),
        (saved(NOISE, "TGA"), "a TGA picture"),
        (bytes(344) + b"n+1\0" + bytes(99), "a NIfTI file"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"PK\x03\x04" + bytes(99), "a zip"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "an HTML page"),
        (b"<html>404</html>" * 99, "an HTML page"),
    ],
)
def test_a_file_that_is_surely_something_else_is_named(data: bytes, name: str) -> None:
    assert reason(data) == f"undecodable: {name}"


def test_an_empty_file_is_refused_as_empty() -> None:
    assert reason(b"") == "undecodable: an empty file"


def test_every_damaged_file_is_read_or_refused_with_a_stable_reason() -> None:
    outcomes = ("read", "truncated", "too large: ", "undecodable: ")
    for data in WHOLE.values():
        for position in range(9, min(len(data), 400), 13):
            damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
            result = outcome(damaged)
            assert result.startswith(outcomes)
            # No address of a Python object, which differs from run to run.
            assert " at 0x" not in result


def test_a_flipped_byte_in_the_pixels_of_a_png_is_refused() -> None:
    data = bytearray(WHOLE["png"])
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == "undecodable: a damaged or unsupported PNG"


def test_a_picture_for_the_report_is_decoded_as_drawn_and_refused_where_it_is_too_large() -> None:
    assert np.array_equal(decode_rgb(saved(COLOR, "PNG"), COLOR[:, :, 0].size), COLOR)
    sheet = png_header(2001, 2000, 8, RGB_PNG) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"^too large: 2001 x 2000 pixels are over 4 megapixels$"):
        decode_rgb(sheet, 4_000_000)
    huge = png_header(20_000, 20_000, 8, RGB_PNG) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"^too large: 20000 x 20000 pixels are over 100 mega"):
        decode_rgb(huge, 4_000_000)
    with pytest.raises(ImageError, match=r"^undecodable: an SVG"):
        decode_rgb(b"<svg/>", 4_000_000)
