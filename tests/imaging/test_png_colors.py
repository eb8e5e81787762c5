"""A color is one gray value, in whatever color type, bit depth and order of rows a PNG holds it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.imaging import png as plain_png
from jobs.imaging.decode import decode_film
from tests.support.image_files import GRAY_PNG, LA_PNG, RGB_PNG, RGBA_PNG, chunk

PALETTE_PNG = 3
# Adam7 (PNG specification, 8.2): first row, first column, and the steps of each pass.
WHOLE = [(0, 0, 1, 1)]
ADAM7 = [
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
]
STRONG = [
    *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)),
    *((255, 255, 255), (0, 0, 0), (128, 0, 0), (0, 1, 254), (254, 1, 0)),
]
PROFILE = chunk(b"iCCP", b"wide\0\0" + zlib.compress(bytes(range(256)) * 2))
CHUNKS = {
    "nothing": b"",
    "gAMA": chunk(b"gAMA", struct.pack(">I", 100_000)),
    "sRGB": chunk(b"sRGB", b"\0") + chunk(b"gAMA", struct.pack(">I", 45_455)),
    "iCCP": PROFILE,
    "cHRM": chunk(b"cHRM", struct.pack(">8I", *(31_270, 32_900, 64_000, 33_000) * 2)),
    "sBIT": chunk(b"sBIT", b"\5\6\5"),
}

Samples = NDArray[np.integer]


def colors(seed: int, count: int) -> NDArray[np.uint8]:
    """(count, 3), strong colors first in a random order; one has a full channel."""
    rng = np.random.default_rng(seed)
    strong = rng.permutation(STRONG)[:count]
    random = rng.integers(0, 256, (count, 3))
    drawn = np.concatenate([strong, random])[:count]
    drawn[0, rng.integers(0, 3)] = 255
    return drawn.astype(np.uint8)


def image_of(seed: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(its palette (count, 3), each pixel's index (H, W))."""
    rng = np.random.default_rng(1000 + seed)
    height, width = rng.integers(1, 40, 2)
    index = rng.integers(0, count, (height, width)).astype(np.uint8)
    index[0, 0] = 0
    return colors(seed, count), index


def rows_of(samples: Samples, depth: int) -> bytes:
    """Unfiltered rows of samples (H, W) or (H, W, C); those of under 8 bits are packed."""
    if depth >= 8:
        ordered = samples.astype(">u2" if depth == 16 else np.uint8)
        return b"".join(b"\0" + row.tobytes() for row in ordered)
    bits = (samples[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in bits)


def png(
    samples: Samples, kind: int, depth: int, *, extra: bytes = b"", interlaced: bool = False
) -> bytes:
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    data = b""
    for row, column, down, right in ADAM7 if interlaced else WHOLE:
        part = samples[row::down, column::right]
        data += rows_of(part, depth) if part.size else b""
    chunks = chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def color_files(
    palette: NDArray[np.uint8], index: NDArray[np.uint8], extra: bytes
) -> Iterator[tuple[str, bytes]]:
    """The image in every form of PNG that holds its colors, by name."""
    rgb = palette[index]
    alpha = np.random.default_rng(len(rgb)).integers(0, 256, (*index.shape, 1)).astype(np.uint8)
    entries = extra + chunk(b"PLTE", palette.tobytes())
    transparent = entries + chunk(b"tRNS", bytes(range(len(palette))))
    key = extra + chunk(b"tRNS", struct.pack(">3H", *map(int, palette[0])))
    fewest = next(depth for depth in (1, 2, 4, 8) if len(palette) <= 2**depth)
    depths = [depth for depth in (1, 2, 4, 8) if depth >= fewest]
    for interlaced in (False, True):
        deep = rgb.astype(np.uint16) * 257
        files = {
            "color": png(rgb, RGB_PNG, 8, extra=extra, interlaced=interlaced),
            "color, one transparent": png(rgb, RGB_PNG, 8, extra=key, interlaced=interlaced),
            "alpha": png(np.dstack([rgb, alpha]), RGBA_PNG, 8, extra=extra, interlaced=interlaced),
            "deep": png(deep, RGB_PNG, 16, extra=extra, interlaced=interlaced),
            "deep alpha": png(
                np.dstack([deep, alpha * np.uint16(257)]), RGBA_PNG, 16, interlaced=interlaced
            ),
        }
        for depth in depths:
            files |= {
                f"palette of {depth}": png(
                    index, PALETTE_PNG, depth, extra=entries, interlaced=interlaced
                ),
                f"palette of {depth}, transparent": png(
                    index, PALETTE_PNG, depth, extra=transparent, interlaced=interlaced
                ),
            }
        yield from ((f"{name}, interlaced: {interlaced}", data) for name, data in files.items())


@pytest.mark.parametrize("seed", range(24))
def test_a_color_has_one_gray_value_in_every_form_of_png(seed: int) -> None:
    palette, index = image_of(seed, count=[2, 4, 16, 256][seed % 4])
    extra = list(CHUNKS.values())[seed % len(CHUNKS)]
    luma = palette @ np.array([0.299, 0.587, 0.114])
    grays: dict[str, bytes] = {}
    for name, data in color_files(palette, index, extra):
        film = decode_film(data)
        # OpenCV's weights have 14 bits.
        assert np.abs(film - luma[index]).max() < 0.52, name
        grays[name] = film.tobytes()
    assert len(set(grays.values())) == 1, {name: value[:8] for name, value in grays.items()}


@pytest.mark.parametrize("kind", CHUNKS)
def test_both_readers_give_one_gray_value_for_a_color(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every color of a grid of 16 a channel, and the strong ones."""
    steps = np.arange(0, 256, 17)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 64, 3).astype(np.uint8)
    data = png(grid, RGB_PNG, 8, extra=CHUNKS[kind])
    assert plain_png.open_plain(data) is not None
    fast = decode_film(data)
    monkeypatch.setattr(plain_png, "open_plain", lambda data: None)
    assert np.array_equal(fast, decode_film(data))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_gray_is_the_same_gray_value_in_every_form_of_png(seed: int, interlaced: bool) -> None:
    rng = np.random.default_rng(seed)
    depth = (1, 2, 4, 8)[seed % 4]
    samples = rng.integers(0, 2**depth, (rng.integers(1, 30), rng.integers(1, 30)))
    # The brightest value gives the scale of 16 bits.
    samples[0, 0] = 2**depth - 1
    gray = (samples * (255 // (2**depth - 1))).astype(np.uint8)
    alpha = rng.integers(0, 256, gray.shape).astype(np.uint8)
    deep = gray.astype(np.uint16) * 257
    files = [
        png(samples, GRAY_PNG, depth, interlaced=interlaced),
        png(samples, GRAY_PNG, depth, extra=chunk(b"tRNS", b"\0\1"), interlaced=interlaced),
        png(gray, GRAY_PNG, 8, interlaced=interlaced),
        png(deep, GRAY_PNG, 16, interlaced=interlaced),
        png(np.dstack([gray, alpha]), LA_PNG, 8, interlaced=interlaced),
        png(np.dstack([deep, alpha * np.uint16(257)]), LA_PNG, 16, interlaced=interlaced),
        png(np.dstack([gray] * 3), RGB_PNG, 8, interlaced=interlaced),
        png(np.dstack([deep] * 3), RGB_PNG, 16, interlaced=interlaced),
    ]
    for data in files:
        assert np.array_equal(decode_film(data), gray)


@pytest.mark.parametrize("color", STRONG[:6])
def test_a_deep_film_of_one_strong_color_is_no_brighter_than_its_luma(
    color: tuple[int, int, int],
) -> None:
    """By the scale of its own luma a pure blue would be four times as bright."""
    deep = np.full((4, 5, 3), color, np.uint16) * 257
    luma = np.array(color) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_film(png(deep, RGB_PNG, 16)) - luma).max() < 0.52
