"""Films and masks in every depth and color, and real films against another decoder."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from jobs.imaging.decode import ImageError, decode_film, decode_mask
from tests.support.image_files import (
    COLOR,
    GRAY_PNG,
    LA_PNG,
    LUMA,
    NOISE,
    RGB_PNG,
    RGBA_PNG,
    chunk,
    exif,
    png,
    png_orientation,
    saved,
    tiff,
)

SMOOTH = np.asarray(cv2.GaussianBlur(NOISE, (0, 0), 4), dtype=np.uint8)


@pytest.mark.parametrize("data", [png(NOISE, GRAY_PNG), tiff(NOISE, 1), saved(NOISE, "TIFF")])
def test_an_eight_bit_film_keeps_its_pixels(data: bytes) -> None:
    film = decode_film(data)
    assert film.dtype == np.uint8
    assert np.array_equal(film, NOISE)


def test_a_decoded_film_is_writeable() -> None:
    assert decode_film(png(NOISE, GRAY_PNG)).flags.writeable


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_one_bit_film_is_black_and_white(file_format: str) -> None:
    assert np.array_equal(decode_film(saved(NOISE > 99, file_format)), (NOISE > 99) * 255)


@pytest.mark.parametrize(
    ("maximum", "limit"),
    [
        (255, 255),
        (256, 1023),
        (1023, 1023),
        (3000, 4095),
        (4095, 4095),
        (9000, 16383),
        (16384, 65535),
        (65535, 65535),
    ],
)
@pytest.mark.parametrize("container", ["png", "tiff"])
def test_a_deep_film_is_scaled_from_the_bit_depth_that_holds_it(
    container: str, maximum: int, limit: int
) -> None:
    deep = np.linspace(0, maximum, 40 * 50).round().astype(np.uint16).reshape(40, 50)
    film = decode_film(png(deep, GRAY_PNG) if container == "png" else tiff(deep, 1))
    assert film.dtype == np.uint8
    assert np.array_equal(film, np.round(deep.astype(np.float64) * 255 / limit))
    assert (np.diff(film.ravel().astype(int)) >= 0).all()


def test_every_sixteen_bit_value_is_rounded_to_the_nearest() -> None:
    ramp = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(decode_film(png(ramp, GRAY_PNG)), np.round(ramp / 257.0))


def test_a_black_deep_film_is_black() -> None:
    assert not decode_film(png(np.zeros((4, 5), np.uint16), GRAY_PNG)).any()


@pytest.mark.parametrize("data", [png(COLOR, RGB_PNG), tiff(COLOR, 2)])
def test_a_color_film_becomes_its_luma(data: bytes) -> None:
    assert np.abs(decode_film(data) - LUMA).max() <= 1


def test_gray_stored_as_color_is_unchanged() -> None:
    assert np.array_equal(decode_film(png(np.dstack([NOISE] * 3), RGB_PNG)), NOISE)


@pytest.mark.parametrize("alpha", [0, 128])
def test_alpha_is_dropped_and_not_composited(alpha: int) -> None:
    plane = np.full_like(NOISE, alpha)
    assert np.array_equal(decode_film(png(np.dstack([NOISE, plane]), LA_PNG)), NOISE)
    assert np.abs(decode_film(png(np.dstack([COLOR, plane]), RGBA_PNG)) - LUMA).max() <= 1


@pytest.mark.parametrize(
    "data",
    [
        png(NOISE, GRAY_PNG, chunk(b"tRNS", struct.pack(">H", 7))),
        saved(Image.frombytes("P", (53, 37), NOISE.tobytes()).convert("PA"), "TIFF"),
    ],
)
def test_a_transparent_color_or_palette_alpha_is_dropped(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        opaque = np.asarray(image.convert("RGB")) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_film(data) - opaque).max() <= 1


@pytest.mark.parametrize("transparency", [None, b"\x00\x80\xff"])
def test_a_palette_film_is_read_by_its_colors(transparency: bytes | None) -> None:
    palette = Image.frombytes("P", (53, 37), (NOISE % 3).tobytes())
    palette.putpalette([250, 250, 250, 0, 0, 0, 255, 0, 0])
    options = {"transparency": transparency} if transparency else {}
    film = decode_film(saved(palette, "PNG", **options))
    assert np.abs(film - np.array([250, 0, 76.245])[NOISE % 3]).max() <= 1


def test_a_jpeg_film_is_close_to_the_saved_image() -> None:
    assert np.abs(decode_film(saved(SMOOTH, "JPEG", quality=95)).astype(int) - SMOOTH).max() <= 4


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    cmyk = Image.fromarray(np.dstack([SMOOTH] * 3)).convert("CMYK")
    film = decode_film(saved(cmyk, "JPEG", quality=95))
    assert np.abs(film.astype(int) - SMOOTH).max() <= 6


DEEP_COLOR = {
    "png": lambda gray: png(np.dstack([gray] * 3), RGB_PNG),
    "png with alpha": lambda gray: png(np.dstack([gray] * 3 + [gray // 2]), RGBA_PNG),
    "png, gray with alpha": lambda gray: png(np.dstack([gray, gray // 2]), LA_PNG),
    "tiff": lambda gray: tiff(np.dstack([gray] * 3), 2),
}


@pytest.mark.parametrize("kind", DEEP_COLOR)
def test_a_twelve_bit_film_stored_as_deep_color_is_not_black(kind: str) -> None:
    gray = (NOISE.astype(np.uint16) * 16) + 15
    assert np.array_equal(decode_film(DEEP_COLOR[kind](gray)), np.round(gray * (255 / 4095)))


def test_deep_color_keeps_the_order_of_its_channels() -> None:
    assert np.abs(decode_film(png(COLOR.astype(np.uint16) * 257, RGB_PNG)) - LUMA).max() <= 1


def test_deep_color_in_separate_planes_is_refused() -> None:
    data = tiff(COLOR.astype(np.uint16) * 257, 2, planar=2)
    with pytest.raises(ImageError, match=r"^undecodable: RGB of 16 bits a channel"):
        decode_film(data)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_inverted(depth: type[np.unsignedinteger[Any]]) -> None:
    limit = np.iinfo(depth).max
    negative = limit - NOISE.astype(depth) * depth(limit // 255)
    negative[0, 0] = limit
    film = decode_film(tiff(negative, 0))
    assert film[0, 0] == 0
    assert np.array_equal(film[1:], NOISE[1:])


def test_the_first_page_of_a_tiff_is_the_film() -> None:
    pages = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert np.array_equal(decode_film(data), NOISE)


ORIENTED = {
    "png": lambda o: png(NOISE, GRAY_PNG, png_orientation(o)),
    "jpeg": lambda o: saved(SMOOTH, "JPEG", quality=100, exif=exif(o)),
    "tiff": lambda o: tiff(NOISE, 1, orientation=o),
    "deep png": lambda o: png(NOISE * np.uint16(257), GRAY_PNG, png_orientation(o)),
    "deep color png": lambda o: png(
        np.dstack([NOISE * np.uint16(257)] * 3), RGB_PNG, png_orientation(o)
    ),
    "deep color tiff": lambda o: tiff(np.dstack([NOISE * np.uint16(257)] * 3), 2, orientation=o),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ORIENTED)
def test_a_film_is_turned_upright_by_its_orientation(kind: str, orientation: int) -> None:
    stored = Image.fromarray(SMOOTH if kind == "jpeg" else NOISE)
    stored.getexif()[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    film = decode_film(ORIENTED[kind](orientation))
    assert film.shape == upright.shape
    assert np.abs(film - upright).max() <= (2 if kind == "jpeg" else 0)


def test_orientation_six_is_a_quarter_turn_clockwise() -> None:
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    data = png(stored, GRAY_PNG, png_orientation(6))
    assert decode_film(data).tolist() == [[4, 1], [5, 2], [6, 3]]
    assert decode_mask(data).tolist() == [[1, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_outside_the_standard_is_ignored(orientation: int) -> None:
    assert np.array_equal(decode_film(ORIENTED["png"](orientation)), NOISE)


def opencv_film(data: bytes) -> NDArray[np.float64]:
    """A film decoded by OpenCV and converted in float64, without rounding."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    pixels = np.asarray(decoded, dtype=np.float64)
    if pixels.ndim == 3:
        pixels = pixels[:, :, 2::-1] @ np.array([0.299, 0.587, 0.114])
    bits = max(8, int(np.ceil(np.log2(pixels.max() + 1))))
    return np.asarray(pixels * (255 / (2 ** (bits + bits % 2) - 1)))


def test_real_color_and_sixteen_bit_films_are_decoded_as_by_opencv(shared_data: Path) -> None:
    kinds = {"color": 0, "deep": 0, "gray": 0}
    with zipfile.ZipFile(shared_data / "kermany-as-masks-and-labels.zip") as archive:
        names = [name for name in archive.namelist() if re.search(r"CXR_png/\w+\.png$", name)]
        for position, name in enumerate(sorted(names)):
            data = archive.read(name)
            kind = "color" if data[25] == RGB_PNG else "deep" if data[24] == 16 else "gray"
            kinds[kind] += 1
            if kind != "gray" or position % 10 == 0:
                assert np.abs(decode_film(data) - opencv_film(data)).max() <= 1, name
    assert kinds == {"color": 18, "deep": 13, "gray": 109}
