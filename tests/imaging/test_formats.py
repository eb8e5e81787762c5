"""Films and masks of every format, whatever their names; files of several pictures; bounds."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from jobs.imaging import decode, formats, pictures
from jobs.imaging.canvas import canvas_of
from jobs.imaging.decode import ImageError, decode_film, decode_mask, working_bytes
from tests.support.image_files import COLOR, LUMA, NOISE, exif, saved

SMOOTH = np.asarray(cv2.GaussianBlur(NOISE, (0, 0), 4), dtype=np.uint8)
LUNG = np.zeros((37, 53), bool)
LUNG[5:30, 8:20] = LUNG[5:28, 30:45] = True


def bmp(rows: bytes, width: int, height: int, bits: int, compression: int, colors: bytes) -> bytes:
    """A BMP with the header of Windows 3; colors are BGR0."""
    start = 14 + 40 + len(colors)
    size = (40, width, height, 1, bits, compression, len(rows), 0, 0, len(colors) // 4, 0)
    header = struct.pack("<IiiHHIIiiII", *size)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colors + rows


GRAYS = b"".join(bytes((level, level, level, 0)) for level in range(256))
# By hand: (0 x 3, 1) above (1, 0, 0, 1), rows from the bottom; 1 is 255, 0 is 9.
PALETTE = bytes((9, 9, 9, 0, 255, 255, 255, 0))
DRAWN = [[9, 9, 9, 255], [255, 9, 9, 255]]
BMPS = {
    "1 bit": bmp(b"\x90\0\0\0\x10\0\0\0", 4, 2, 1, 0, PALETTE),
    "4 bits": bmp(b"\x10\x01\0\0\x00\x01\0\0", 4, 2, 4, 0, PALETTE),
    "8 bits": bmp(b"\1\0\0\1\0\0\0\1", 4, 2, 8, 0, PALETTE),
    "8 bits, from the top": bmp(b"\0\0\0\1\1\0\0\1", 4, -2, 8, 0, PALETTE),
    "run lengths of 8 bits": bmp(
        b"\1\1\2\0\1\1\0\0" + b"\3\0\1\1\0\0" + b"\0\1", 4, 2, 8, 1, PALETTE
    ),
    "run lengths of 4 bits": bmp(
        b"\1\x10\2\0\1\x10\0\0" + b"\3\0\1\x10\0\0" + b"\0\1", 4, 2, 4, 2, PALETTE
    ),
    "32 bits": bmp(
        b"".join(bytes((v, v, v, 0)) for row in DRAWN[::-1] for v in row), 4, 2, 32, 0, b""
    ),
}


@pytest.mark.parametrize("kind", BMPS)
def test_a_bmp_of_every_depth_is_read_by_its_colors(kind: str) -> None:
    assert decode_film(BMPS[kind]).tolist() == DRAWN
    assert decode_mask(BMPS[kind]).tolist() == [[v == 255 for v in row] for row in DRAWN]


LOSSLESS: dict[str, dict[str, Any]] = {
    "BMP": {},
    "GIF": {},
    "WEBP": {"lossless": True},
    "JPEG2000": {},
    "JPEG2000 codestream": {"no_jp2": True},
    "JPEG2000 in tiles": {"tile_size": (16, 16)},
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_film_of_another_format_keeps_its_pixels(name: str) -> None:
    data = saved(NOISE, name.partition(" ")[0], **LOSSLESS[name])
    film = decode_film(data)
    assert film.dtype == np.uint8
    assert film.flags.writeable
    assert np.array_equal(film, NOISE)


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_mask_of_another_format_is_the_same(name: str) -> None:
    for top in (1, 255):
        data = saved(LUNG * np.uint8(top), name.partition(" ")[0], **LOSSLESS[name])
        assert np.array_equal(decode_mask(data), LUNG)


@pytest.mark.parametrize("name", [name for name in LOSSLESS if name != "GIF"])
def test_a_color_film_of_another_format_becomes_its_luma(name: str) -> None:
    data = saved(COLOR, name.partition(" ")[0], **LOSSLESS[name])
    assert np.abs(decode_film(data) - LUMA).max() <= 1


def test_a_lossy_film_is_close_to_the_saved_image() -> None:
    for data in (
        saved(SMOOTH, "WEBP", quality=95),
        saved(SMOOTH, "JPEG2000", quality_mode="dB", quality_layers=[50], irreversible=True),
    ):
        assert np.abs(decode_film(data).astype(int) - SMOOTH).max() <= 6


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
def test_a_deep_jpeg_2000_keeps_its_depth(options: dict[str, Any]) -> None:
    deep = np.linspace(0, 65535, 40 * 50).round().astype(np.uint16).reshape(40, 50)
    film = decode_film(saved(deep, "JPEG2000", **options))
    assert np.array_equal(film, np.round(deep / 257.0))
    twelve = saved((deep >> 4), "JPEG2000", **options)
    assert np.array_equal(decode_film(twelve), np.round((deep >> 4) * (255 / 4095)))


def test_a_palette_of_a_jpeg_2000_is_read_by_its_colors() -> None:
    # Pillow writes no palettes: one is put into the file of the indices, and color in its box colr.
    data = saved(NOISE % 2, "JPEG2000")
    data = data.replace(struct.pack(">I", 17), struct.pack(">I", 16), 1)
    table = struct.pack(">HB3B", 2, 3, 7, 7, 7) + bytes((250, 250, 250, 40, 40, 40))
    mapping = b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3))
    boxes = b"".join(
        struct.pack(">I4s", 8 + len(body), name) + body
        for name, body in ((b"pclr", table), (b"cmap", mapping))
    )
    place = data.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", data, place)
    whole = data[:place] + struct.pack(">I", length + len(boxes)) + data[place + 4 :]
    whole = whole[: place + length] + boxes + whole[place + length :]
    assert decode_film(whole).tolist() == np.where(NOISE % 2, 40, 250).tolist()


def test_a_jpeg_of_several_pictures_is_read_by_the_first() -> None:
    first, second = Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)
    data = saved(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(decode_film(data).astype(int) - SMOOTH).max() <= 4
    assert pictures.left_out(data) == "the first of several pictures is read"
    assert pictures.left_out(saved(first, "JPEG")) == ""


@pytest.mark.parametrize(("name", "options"), [("GIF", {}), ("WEBP", {"lossless": True})])
def test_the_first_frame_of_an_animation_is_the_film(name: str, options: dict[str, Any]) -> None:
    frames = [Image.fromarray(part) for part in (NOISE, 255 - NOISE, NOISE[::-1])]
    data = saved(frames[0], name, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decode_film(data), NOISE)
    assert pictures.left_out(data) == "the first of several pictures is read"
    assert pictures.left_out(saved(frames[0], name, **options)) == ""


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "BMP", "JPEG2000"])
def test_nothing_is_said_of_a_file_of_one_picture(name: str) -> None:
    data = saved(NOISE, name)
    assert pictures.left_out(data) == ""
    assert pictures.film_alone(data) is data


def test_a_gif_with_comments_and_transparency_is_read_without_them() -> None:
    plain = saved(NOISE, "GIF")
    start = 13 + 3 * 256
    comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 20_000 + b"\0"
    transparent = b"!\xf9\x04\x01\0\0\x07\0"
    data = b"GIF89a" + plain[6:start] + comment + transparent + plain[start:]
    assert plain[start] in b"!,"
    assert np.array_equal(decode_film(data), NOISE)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_webp_is_turned_upright(orientation: int) -> None:
    data = saved(NOISE, "WEBP", lossless=True, exif=exif(orientation))
    turns = {3: 2, 6: -1}[orientation]
    assert np.array_equal(decode_film(data), np.rot90(NOISE, turns))
    assert decode.orientation_of(data) == orientation


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_film(data)
    assert working_bytes(data) == 0
    return str(caught.value)


def webp_of(width: int, height: int) -> bytes:
    """A lossless WebP whose header claims another size."""
    data = bytearray(saved(NOISE, "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, bits >> 28 << 28 | height - 1 << 14 | width - 1)
    return bytes(data)


def jpeg_2000_of(width: int, height: int, *, box: bool, codestream: bool) -> bytes:
    """A JPEG 2000 of NOISE whose box or whose codestream claims another size."""
    data = bytearray(saved(NOISE, "JPEG2000"))
    if box:
        struct.pack_into(">II", data, data.index(b"ihdr") + 4, height, width)
    if codestream:
        start = data.index(b"\xff\x4f\xff\x51") + 8
        struct.pack_into(">II", data, start, width, height)
        struct.pack_into(">II", data, start + 16, width, height)
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    data = bytearray(saved(NOISE, "GIF"))
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


def bmp_of(width: int, height: int) -> bytes:
    return bmp(b"\1\0" * 50, width, height, 8, 0, GRAYS)


OVER = "pixels are over 100 megapixels"
DAMAGED = "undecodable: a damaged or unsupported JPEG 2000"
JP2_BOX = jpeg_2000_of(9999, 9999, box=True, codestream=False)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (webp_of(16383, 16383), f"too large: 16383 x 16383 {OVER}"),
        (webp_of(10_000, 9_000), "too large: decoding takes 1800 MB, over 1073"),
        (
            jpeg_2000_of(2**31, 2**31, box=True, codestream=True),
            f"too large: {2**31} x {2**31} {OVER}",
        ),
        (
            jpeg_2000_of(2**31, 2**31, box=False, codestream=True),
            f"too large: {2**31} x {2**31} {OVER}",
        ),
        (JP2_BOX, DAMAGED),
        (gif_of(65535, 65535), f"too large: 65535 x 65535 {OVER}"),
        (bmp_of(65535, 65535), f"too large: 65535 x 65535 {OVER}"),
        (jpeg_2000_of(0, 0, box=False, codestream=True), DAMAGED),
        (webp_of(53, 37)[:15], "truncated"),
    ],
)
def test_a_size_that_is_too_large_is_refused_before_a_decoder_makes_room_for_it(
    data: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("Pillow decoded"))
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", lambda _: pytest.fail("Pillow made room"))
    assert reason(data) == expected


def with_precincts(data: bytes) -> bytes:
    """The JPEG 2000 with a coding segment for precincts of 4 x 4 pixels at each level."""
    start = data.index(b"\xff\x52")
    coding = bytearray(data[start : start + 14])
    levels = coding[9]
    struct.pack_into(">HB", coding, 2, 12 + levels + 1, 1)
    return data[:start] + coding + b"\x22" * (levels + 1) + data[start + 14 :]


FLAT = np.zeros((64, 64), np.uint8)
TINY_PARTS = {
    "blocks": (saved(FLAT, "JPEG2000", codeblock_size=(4, 4)), 30),
    "precincts": (with_precincts(saved(FLAT, "JPEG2000")), 100),
    "tiles": (saved(FLAT, "JPEG2000", tile_size=(4, 4)), 400),
}


@pytest.mark.parametrize("parts", TINY_PARTS)
def test_a_jpeg_2000_of_tiny_parts_costs_more_than_one_of_large_parts(parts: str) -> None:
    data, least = TINY_PARTS[parts]
    plain, tiny = (canvas_of(file, "JPEG2000") for file in (saved(FLAT, "JPEG2000"), data))
    assert plain is not None
    assert tiny is not None
    assert plain[:2] == tiny[:2] == (64, 64)
    assert tiny.cost > least * FLAT.size > plain.cost


def test_the_kind_of_a_file_is_that_of_its_content() -> None:
    kinds = {name: formats.kind_of(saved(NOISE, name)) for name in Image.SAVE if name in KINDS}
    assert kinds == KINDS
    assert formats.kind_of(b"") is None


KINDS = {name: name for name in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000")}


def test_every_damaged_file_is_read_or_refused_with_a_stable_reason() -> None:
    outcomes = ("read", "truncated", "too large: ", "undecodable: ")
    for data in (saved(NOISE, name) for name in ("GIF", "BMP", "WEBP", "JPEG2000")):
        for position in range(9, min(len(data), 300), 11):
            damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
            try:
                decode_film(damaged)
            except ImageError as error:
                assert str(error).startswith(outcomes)


def test_pillow_sees_the_size_that_the_header_gives() -> None:
    for name, options in (("WEBP", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {})):
        for pixels in (NOISE, COLOR, np.dstack([COLOR, NOISE])):
            data = saved(pixels, name, **options)
            with Image.open(io.BytesIO(data)) as image:
                canvas = canvas_of(data, name)
                assert canvas is not None
                assert canvas[:2] == image.size == (53, 37)
