"""Masks with many gray values inside: films that are cut out by their masks, and films."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.imaging.decode import MaskError, decode_film, decode_mask, decode_truth
from jobs.imaging.mask_values import parse
from tests.support.films import draw_pair
from tests.support.image_files import RGB_PNG, png, saved

HEIGHT, WIDTH = 480, 384
NOISE_FILM, LEFT, RIGHT = draw_pair(3, HEIGHT, WIDTH)
LUNGS = LEFT | RIGHT
WHITE = LUNGS * np.uint8(255)
RIBS = 40 * np.sin(np.mgrid[:HEIGHT, :WIDTH][0] / 9)
FILM = np.clip(cv2.GaussianBlur(NOISE_FILM, (0, 0), 2) + RIBS, 1, 255).astype(np.uint8)
CUT = np.where(LUNGS, FILM, 0).astype(np.uint8)


def of_side(samples: NDArray[Any], side: int, how: int = cv2.INTER_AREA) -> NDArray[Any]:
    return cv2.resize(samples, (side, side * HEIGHT // WIDTH), interpolation=how)


def as_jpeg(samples: NDArray[Any], quality: int) -> NDArray[np.uint8]:
    return decode_film(saved(samples, "JPEG", quality=quality))


def softened(sigma: float) -> NDArray[np.uint8]:
    return np.asarray(FILM * (cv2.GaussianBlur(WHITE, (0, 0), sigma) / 255.0)).astype(np.uint8)


PALETTE = Image.frombytes("P", (WIDTH, HEIGHT), (255 - CUT).tobytes())
PALETTE.putpalette([channel for value in range(255, -1, -1) for channel in (value,) * 3])
TINTED = np.dstack([CUT, CUT // 2, CUT // 3])
FILMS: dict[str, bytes] = {
    "8 bits": saved(CUT, "PNG"),
    "TIFF": saved(CUT, "TIFF"),
    "16 bits": saved(CUT.astype(np.uint16) * 257, "PNG"),
    "12 bits": saved(CUT.astype(np.uint16) * 16, "TIFF"),
    "RGB": saved(np.dstack([CUT] * 3), "PNG"),
    "tinted": saved(TINTED, "PNG"),
    "palette": saved(PALETTE, "PNG"),
    "BMP": saved(CUT, "BMP"),
    "lossless WebP": saved(np.dstack([CUT] * 3), "WEBP", lossless=True),
    "inverted film": saved(np.where(LUNGS, 255 - FILM, 0).astype(np.uint8), "PNG"),
    "equalized": saved(np.where(LUNGS, cv2.equalizeHist(FILM), 0).astype(np.uint8), "PNG"),
    "one lung": saved(np.where(LEFT, FILM, 0).astype(np.uint8), "PNG"),
    "soft edges": saved(softened(3), "PNG"),
    "of side 64": saved(of_side(CUT, 64), "PNG"),
    "enlarged": saved(of_side(of_side(CUT, 96), 384, cv2.INTER_LINEAR), "PNG"),
    "copy of a JPEG": saved(as_jpeg(CUT, 30), "PNG"),
    "white lungs in a film": saved(np.where(LUNGS, 255, FILM).astype(np.uint8), "PNG"),
    "a film": saved(FILM, "PNG"),
    "a sixth of one lung": saved(
        np.where(LEFT & (np.mgrid[:HEIGHT, :WIDTH][0] > 280), FILM, WHITE).astype(np.uint8), "PNG"
    ),
}


@pytest.mark.parametrize("kind", FILMS)
def test_a_mask_with_the_grays_of_a_film_inside_is_refused(kind: str) -> None:
    for decode in (decode_mask, lambda data: decode_truth(data, ())):
        with pytest.raises(MaskError, match=r"^many gray values inside: \d+ to \d+, away from "):
            decode(FILMS[kind])


def test_the_reason_names_the_grays_and_the_share_of_the_frame() -> None:
    ramp = np.zeros((400, 400), np.uint8)
    ramp[100:300, 100:300] = np.arange(60, 110).repeat(4)  # a quarter of the frame
    ramp[:20, :20] = 255
    with pytest.raises(MaskError) as caught:
        decode_mask(saved(ramp, "PNG"))
    assert str(caught.value) == (
        # Less a pixel at each edge of the square.
        f"many gray values inside: 60 to 109, away from edges, on {100 * 198**2 / 400**2:.1f} % of "
        "the frame; choose with --mask-values"
    )


def test_a_gray_that_would_be_cut_off_for_a_few_brighter_pixels_is_refused() -> None:
    samples = LUNGS * np.uint8(100)
    samples[5:15, 5:25] = 255  # a letter, a thousandth of the frame
    with pytest.raises(MaskError, match=r"^many gray values inside: 100 to 100, away "):
        decode_mask(saved(samples, "PNG"))
    assert np.array_equal(decode_truth(saved(samples, "PNG"), parse("100")).pixels, LUNGS)


def test_with_named_values_such_a_mask_is_cut_between_them_and_the_background() -> None:
    grays = ",".join(map(str, range(20, 256)))
    assert np.array_equal(decode_truth(saved(CUT, "PNG"), parse(grays)).pixels, LUNGS)


MASKS: dict[str, NDArray[Any]] = {
    **{f"blurred by {sigma}": cv2.GaussianBlur(WHITE, (0, 0), sigma) for sigma in (1, 2, 3, 6)},
    **{f"enlarged by 4, {how}": of_side(WHITE, 4 * WIDTH, how) for how in range(5)},
    **{f"a fourth, enlarged, {how}": of_side(of_side(WHITE, 96), WIDTH, how) for how in range(5)},
    **{f"reduced to {side}": of_side(WHITE, side) for side in (48, 64, 96, 200)},
    **{f"copy of a JPEG of {q}": as_jpeg(WHITE, q) for q in (10, 30, 75, 95)},
    "copy of an enlarged JPEG": of_side(as_jpeg(WHITE, 30), 4 * WIDTH, cv2.INTER_LINEAR),
    "JPEG of a blurred one": as_jpeg(cv2.GaussianBlur(WHITE, (0, 0), 3), 30),
    "JPEG of a small one": as_jpeg(of_side(WHITE, 96), 30),
    "0 and 1, 16 bits, blurred": cv2.GaussianBlur(LUNGS * np.uint16(1000), (0, 0), 3),
}


@pytest.mark.parametrize("kind", MASKS)
def test_the_grays_of_edges_are_none_inside(kind: str) -> None:
    samples = MASKS[kind]
    expected = samples > samples.max() // 2
    assert np.array_equal(decode_mask(saved(samples, "PNG")), expected)


def test_the_grays_of_colored_edges_are_none_inside() -> None:
    red = np.dstack([cv2.GaussianBlur(WHITE, (0, 0), 3), 0 * WHITE, 0 * WHITE])
    assert np.array_equal(decode_mask(png(red, RGB_PNG)), red[:, :, 0] > 127)
    with Image.open(io.BytesIO(saved(red, "JPEG", quality=30))) as image:
        copy = np.asarray(image)
    assert np.mean(decode_mask(png(copy, RGB_PNG)) != (red[:, :, 0] > 127)) < 0.01


@pytest.mark.parametrize("count", [1, 40])
def test_small_gray_parts_of_a_mask_are_none(count: int) -> None:
    samples = WHITE.copy()
    samples[200 : 200 + count // 4 + 5, 90:110] = np.linspace(60, 200, 20)  # below 0.5 %
    assert np.array_equal(decode_mask(saved(samples, "PNG")), samples > 127)
