"""The reader of plain PNGs gives the same pixels as Pillow and accepts no more files."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from jobs.imaging import png as plain_png
from jobs.imaging.decode import ImageError, decode_film, decode_mask
from jobs.imaging.png import open_plain
from tests.support.image_files import (
    COLOR,
    COLOR_MASK,
    GRAY_PNG,
    LUMA,
    NOISE,
    RGB_PNG,
    RGBA_PNG,
    chunk,
    exif,
    png,
    png_header,
    png_orientation,
    saved,
)

SMOOTH = np.asarray(cv2.GaussianBlur(np.tile(NOISE, (4, 5)), (0, 0), 3), dtype=np.uint8)
ONE_BIT = SMOOTH > 127
END = chunk(b"IEND", b"")


# uint16, of smooth channels with values of their own.
DEEP = np.dstack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]]) * np.uint16(200) + np.uint16(37)


def by_opencv(samples: NDArray[np.uint16]) -> bytes:
    return cv2.imencode(".png", samples)[1].tobytes()


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(data)).convert("L"))


def png_of_rows(data: bytes, rows: int, junk: bytes = b"") -> bytes:
    """A PNG as wide as NOISE, with valid checksums, whose stream holds the filtered rows `data`."""
    header = png_header(NOISE.shape[1], rows, 8, GRAY_PNG)
    return header + chunk(b"IDAT", zlib.compress(data) + junk) + END


def rows_of(image: NDArray[np.uint8]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in image)


@pytest.mark.parametrize("image", [SMOOTH, NOISE, ONE_BIT, ONE_BIT[:1], SMOOTH[:, :1]])
def test_a_plain_png_has_the_pixels_that_pillow_reads(image: NDArray[np.uint8]) -> None:
    data = saved(image, "PNG")
    assert open_plain(data) is not None
    assert np.array_equal(decode_film(data), by_pillow(data))


@pytest.mark.parametrize("width", range(1, 18))
def test_one_bit_masks_of_any_width_have_the_pixels_that_pillow_reads(width: int) -> None:
    data = saved(np.ascontiguousarray(ONE_BIT[:, 40 : 40 + width]), "PNG")
    plain = open_plain(data)
    assert plain is not None and (plain.width, plain.depth) == (width, 1)
    assert np.array_equal(decode_mask(data), by_pillow(data) > 0)
    assert decode_film(data).max() == 255


@pytest.mark.parametrize("extra", [b"", chunk(b"tRNS", bytes(6))])
def test_a_plain_color_png_becomes_its_luma_or_its_strongest_channel(extra: bytes) -> None:
    data = png(COLOR, RGB_PNG, extra)
    assert open_plain(data) is not None
    assert np.abs(decode_film(data) - LUMA).max() <= 1
    strongest = COLOR_MASK.max(axis=2)
    mask = decode_mask(png(COLOR_MASK, RGB_PNG, extra))
    assert np.array_equal(mask, strongest > strongest.max() // 2)


def test_every_filter_of_png_is_undone() -> None:
    """Rows filtered as the standard defines each filter, over noise of all values."""
    rows, before = b"", np.zeros(NOISE.shape[1], int)
    for index, row in enumerate(NOISE.astype(int)):
        left, corner = np.append(0, row[:-1]), np.append(0, before[:-1])
        estimate = left + before - corner
        nearest = np.argmin([abs(estimate - side) for side in (left, before, corner)], axis=0)
        paeth = np.choose(nearest, [left, before, corner])
        kind = index % 5
        predicted = [0 * row, left, before, (left + before) // 2, paeth][kind]
        rows += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        before = row
    assert np.array_equal(decode_film(png_of_rows(rows, len(NOISE))), NOISE)


PLAIN = {
    "1 bit": saved(ONE_BIT, "PNG"),
    "gray": saved(SMOOTH, "PNG"),
    "color": saved(np.dstack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]]), "PNG"),
    "deep color": by_opencv(DEEP),
    "deep color with alpha": by_opencv(np.dstack([DEEP, DEEP[:, :, :1]])),
}
DEEP_MASK = by_opencv(COLOR_MASK * np.uint16(257))


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
@pytest.mark.parametrize("kind", PLAIN)
def test_a_png_read_in_strips_has_the_samples_that_opencv_reads(
    kind: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PLAIN[kind]
    plain = open_plain(data)
    assert plain is not None
    whole = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    row_bytes = 1 + (-(-whole.shape[1] // 8) if kind == "1 bit" else whole[0].nbytes)
    monkeypatch.setattr(plain_png, "STRIP", rows * row_bytes)
    monkeypatch.setattr(plain_png, "PIECE", 100)
    samples = plain.read()
    assert samples is not None
    # Alpha is dropped.
    expected = whole[:, :, :3] if whole.ndim == 3 else whole
    assert np.array_equal(samples, expected > 0 if kind == "1 bit" else expected)


def test_deep_color_is_the_same_from_a_plain_png_and_through_pillow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [PLAIN["deep color"], PLAIN["deep color with alpha"]]
    films = [decode_film(data) for data in files]
    mask = decode_mask(DEEP_MASK)
    monkeypatch.setattr(plain_png, "open_plain", lambda data: None)
    for film, data in zip(films, files, strict=True):
        assert np.array_equal(film, decode_film(data))
    assert np.array_equal(mask, decode_mask(DEEP_MASK))


HARMLESS = {
    "gamma": chunk(b"gAMA", struct.pack(">I", 100_000)),
    "a transparent gray": chunk(b"tRNS", struct.pack(">H", 7)),
    "significant bits": chunk(b"sBIT", b"\x05"),
    "a background": chunk(b"bKGD", struct.pack(">H", 9)),
    "a pixel size": chunk(b"pHYs", struct.pack(">IIB", 9000, 3000, 1)),
    "text": chunk(b"tEXt", b"Software\0scanner"),
    "a private chunk": chunk(b"prVt", b"anything"),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_chunks_do_not_change_the_pixels_of_a_plain_png(kind: str) -> None:
    data = png(NOISE, GRAY_PNG, HARMLESS[kind])
    assert open_plain(data) is not None
    assert np.array_equal(decode_film(data), NOISE)


def interlaced() -> bytes:
    """An interlaced PNG (Adam7) of one pixel, whose rows are the same as without interlacing."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, GRAY_PNG, 0, 0, 1)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"\0\x63")) + END


def turned_by_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    profile = exif(6).tobytes().hex()
    info.add_text("Raw profile type exif", f"\nexif\n{len(profile) // 2:8d}\n{profile}\n")
    return saved(NOISE, "PNG", pnginfo=info)


SPECIAL = {
    "color with alpha": png(np.dstack([COLOR, NOISE]), RGBA_PNG),
    "sixteen bits": png(NOISE.astype(np.uint16), GRAY_PNG),
    "interlaced": interlaced(),
    "turned": png(NOISE, GRAY_PNG, png_orientation(6)),
    "turned by text": turned_by_text(),
    "a palette": saved(Image.fromarray(NOISE).convert("P"), "PNG"),
    "a byte after its end": png(NOISE, GRAY_PNG) + b"\0",
    "a jpeg": saved(NOISE, "JPEG"),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_png_that_is_not_plain_is_left_to_pillow(kind: str) -> None:
    assert open_plain(SPECIAL[kind]) is None


def test_a_film_with_an_orientation_in_a_text_is_turned_upright() -> None:
    assert np.array_equal(decode_film(turned_by_text()), np.rot90(NOISE, -1))


def test_a_plain_png_over_a_hundred_megapixels_is_refused_without_decoding() -> None:
    data = png_header(10_000, 10_001, 1, GRAY_PNG) + chunk(b"IDAT", b"") + END
    with pytest.raises(ImageError, match=r"^too large: 10000 x 10001"):
        decode_mask(data)


@pytest.mark.parametrize("missing", [1, 54, 54 * 20])
def test_a_png_with_fewer_pixels_than_its_header_declares_is_truncated(missing: int) -> None:
    """With valid checksums and a valid end; Pillow alone would leave whole rows black."""
    data = png_of_rows(rows_of(NOISE)[:-missing], len(NOISE))
    with pytest.raises(ImageError, match=r"^truncated$"):
        decode_film(data)


def test_bytes_after_the_last_pixel_are_ignored() -> None:
    data = png_of_rows(rows_of(NOISE) + b"more", len(NOISE), junk=b"and more")
    assert np.array_equal(decode_film(data), NOISE)


@pytest.mark.parametrize("strip", [plain_png.STRIP, 200])
def test_no_damaged_file_is_read_that_pillow_refuses(
    strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte of a file is changed in turn, and every byte of its stream with a new checksum."""

    def damage(data: bytes, index: int) -> bytes:
        return data[:index] + bytes([data[index] ^ 0x41]) + data[index + 1 :]

    def outcome(data: bytes) -> str:
        try:
            return decode_film(data).tobytes().hex()
        except ImageError as error:
            return str(error)

    monkeypatch.setattr(plain_png, "STRIP", strip)
    whole = png_of_rows(rows_of(SMOOTH[:12, :53]), 12)
    start = len(png_header(1, 1, 8, GRAY_PNG))
    damaged = [damage(whole, index) for index in range(len(whole))]
    stream = whole[start + 8 : -4 - len(END)]
    for index in range(len(stream)):
        damaged.append(whole[:start] + chunk(b"IDAT", damage(stream, index)) + END)
    outcomes = [outcome(data) for data in damaged]
    monkeypatch.setattr(plain_png, "open_plain", lambda data: None)
    by_pillow_alone = [outcome(data) for data in damaged]
    pairs = zip(outcomes, by_pillow_alone, strict=True)
    assert len(set(outcomes)) > 3
    assert {result for result, expected in pairs if result != expected} <= {"truncated"}
