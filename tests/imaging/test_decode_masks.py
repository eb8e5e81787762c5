"""Masks decoded in every depth and color, and encoded."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jobs.imaging.decode import decode_film, decode_mask
from jobs.imaging.encode import encode_mask, encode_png
from tests.support.image_files import (
    COLOR,
    GRAY_PNG,
    LA_PNG,
    NOISE,
    RGB_PNG,
    RGBA_PNG,
    png,
    saved,
)

LUNG = np.zeros((37, 53), bool)
LUNG[5:30, 8:20] = LUNG[5:28, 30:45] = True


@pytest.mark.parametrize(
    "data",
    [
        saved(LUNG, "PNG"),
        saved(LUNG, "TIFF"),
        png(LUNG.astype(np.uint8), GRAY_PNG),
        png(LUNG * np.uint8(255), GRAY_PNG),
        png(LUNG.astype(np.uint16), GRAY_PNG),
        png(LUNG * np.uint16(65535), GRAY_PNG),
        png(np.dstack([LUNG * np.uint8(255)] * 3), RGB_PNG),
        png(np.dstack([LUNG * np.uint8(255), ~LUNG * np.uint8(255)]), LA_PNG),
        png(np.dstack([LUNG * np.uint8(255)] * 3 + [np.zeros(LUNG.shape, np.uint8)]), RGBA_PNG),
    ],
)
def test_a_mask_is_the_same_in_every_depth(data: bytes) -> None:
    mask = decode_mask(data)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, LUNG)


def test_ignored_pixels_of_a_mask_are_not_lung() -> None:
    levels = np.where(LUNG, 255, 127).astype(np.uint8)
    assert np.array_equal(decode_mask(png(levels, GRAY_PNG)), LUNG)


def test_the_ringing_of_a_jpeg_mask_is_not_lung() -> None:
    data = saved(LUNG * np.uint8(255), "JPEG", quality=60)
    assert len(np.unique(decode_film(data))) > 10
    assert np.array_equal(decode_mask(data), LUNG)


def test_colored_lungs_on_black_are_lung() -> None:
    for channel in range(3):
        painted = np.zeros((*LUNG.shape, 3), np.uint8)
        painted[:, :, channel] = LUNG * 255
        assert np.array_equal(decode_mask(png(painted, RGB_PNG)), LUNG)


def test_a_palette_mask_is_read_by_its_colors_and_not_by_its_indices() -> None:
    palette = Image.frombytes("P", (53, 37), np.where(LUNG, 1, 2).astype(np.uint8).tobytes())
    palette.putpalette([9, 9, 9, 0, 128, 0, 0, 0, 0])
    assert np.array_equal(decode_mask(saved(palette, "PNG")), LUNG)


def test_an_empty_mask_has_no_lung() -> None:
    assert not decode_mask(png(np.zeros((4, 5), np.uint8), GRAY_PNG)).any()


@pytest.mark.parametrize("width", range(1, 18))
def test_a_mask_of_any_width_is_unchanged_by_encoding_in_one_bit(width: int) -> None:
    mask = NOISE[:, :width] > 99
    data = encode_mask(mask)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "1"
        assert np.array_equal(np.asarray(image.convert("L")) > 0, mask)
    assert np.array_equal(decode_mask(data), mask)


def test_an_image_is_encoded_with_its_channels_in_order() -> None:
    for pixels in (NOISE, COLOR):
        with Image.open(io.BytesIO(encode_png(pixels))) as image:
            assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("data", [encode_png(NOISE), encode_png(COLOR), encode_mask(LUNG)])
def test_an_encoded_png_has_no_chunks_but_those_for_the_pixels(data: bytes) -> None:
    kinds, position = set(), 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kinds.add(data[position + 4 : position + 8])
        position += length + 12
    assert kinds == {b"IHDR", b"IDAT", b"IEND"}


def test_the_same_pixels_are_the_same_bytes_in_every_memory_layout() -> None:
    assert encode_png(NOISE) == encode_png(NOISE.copy(order="F"))
    assert encode_mask(LUNG) == encode_mask(np.asfortranarray(LUNG))


def test_threads_decode_and_encode_like_one_thread() -> None:
    films = [png(np.roll(NOISE, shift, 1), GRAY_PNG) for shift in range(24)]
    with ThreadPoolExecutor(4) as pool:
        encoded = list(pool.map(lambda data: encode_png(decode_film(data)), films))
    assert encoded == [encode_png(np.roll(NOISE, shift, 1)) for shift in range(24)]
