"""Files of very many parts are refused before a decoder goes through them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jobs.imaging import decode, decode_cost
from jobs.imaging.decode import ImageError, decode_film, decode_mask, working_bytes
from jobs.imaging.file_parts import MOST_PARTS, MOST_SCANS, excess, has_several_scans
from tests.support.image_files import COLOR, GRAY_PNG, NOISE, chunk, png, png_header, saved

MANY = MOST_PARTS + 1
PROGRESSIVE = saved(NOISE, "JPEG", progressive=True)
SCAN = b"\xff\xda"


def png_of(chunks: int) -> bytes:
    """A PNG of NOISE whose pixels are in so many IDAT chunks, most of them empty."""
    height, width = NOISE.shape
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in NOISE))
    pixels = chunk(b"IDAT", b"") * (chunks - 3) + chunk(b"IDAT", packed)
    return png_header(width, height, 8, GRAY_PNG) + pixels + chunk(b"IEND", b"")


def tiff_of(strips: int, order: str = "<", *, big: bool = False) -> bytes:
    """A TIFF of one column and a row a strip; all strips are the same byte, 200."""
    offset, number, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    head = (b"II" if order == "<" else b"MM") + head
    fields = {256: 1, 257: strips, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 0}
    lists = (
        len(head)
        + struct.calcsize(order + number + offset)
        + len(fields) * struct.calcsize(order + entry)
    )
    pixel = lists + 8 * strips
    fields |= {273: lists, 279: lists + 4 * strips}
    entries = b"".join(
        struct.pack(order + entry, tag, 4, strips if tag in (273, 279) else 1, fields[tag])
        for tag in fields
    )
    directory = struct.pack(order + number, len(fields)) + entries + bytes(struct.calcsize(offset))
    values = struct.pack(f"{order}I", pixel) * strips + struct.pack(f"{order}I", 1) * strips
    return head + directory + values + b"\xc8"


def jpeg_of(scans: int) -> bytes:
    """A progressive JPEG of NOISE whose last scan, a refinement, is there many times over."""
    last = PROGRESSIVE.rindex(SCAN)
    repeated = PROGRESSIVE[last:-2] * (scans - PROGRESSIVE.count(SCAN))
    return PROGRESSIVE[:-2] + repeated + PROGRESSIVE[-2:]


def jpeg_with(segments: int) -> bytes:
    plain = saved(NOISE, "JPEG")
    return plain[:2] + b"\xff\xe9\0\2" * segments + plain[2:]


REFUSED = {
    "chunks": (png_of(MANY), f"more than {MOST_PARTS} chunks"),
    "chunks of text": (
        png(NOISE, GRAY_PNG, chunk(b"tEXt", b"a\0b") * MANY),
        f"more than {MOST_PARTS} chunks",
    ),
    "strips": (tiff_of(MANY), f"more than {MOST_PARTS} strips or tiles"),
    "strips, big-endian": (tiff_of(MANY, ">"), f"more than {MOST_PARTS} strips or tiles"),
    "strips of a BigTIFF": (tiff_of(MANY, big=True), f"more than {MOST_PARTS} strips or tiles"),
    "scans": (jpeg_of(MOST_SCANS + 1), f"more than {MOST_SCANS} scans"),
    "segments": (jpeg_with(MANY), f"more than {MOST_PARTS} segments"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_very_many_parts_is_refused_before_a_decoder_opens_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, reason = REFUSED[name]
    monkeypatch.setattr(decode.Image, "open", lambda *_, **__: pytest.fail("Pillow opened it"))
    monkeypatch.setattr(decode.png, "open_plain", lambda _: pytest.fail("it was read"))
    for function in (decode_film, decode_mask):
        with pytest.raises(ImageError, match=f"^too large: {reason}$"):
            function(data)
    assert working_bytes(data) == 0


def test_files_of_some_thousand_parts_are_read() -> None:
    assert np.array_equal(decode_film(png_of(3000)), NOISE)
    assert np.array_equal(decode_film(tiff_of(3000)), np.full((3000, 1), 200))
    assert np.array_equal(decode_film(jpeg_with(3000)), decode_film(saved(NOISE, "JPEG")))
    assert decode_film(jpeg_of(MOST_SCANS)).shape == NOISE.shape


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("pixels", [NOISE, COLOR], ids=["gray", "color"])
def test_what_pillow_writes_is_within_the_limits(pixels: np.ndarray, file_format: str) -> None:
    large = np.kron(pixels, np.ones((20, 20, 1)[: pixels.ndim], np.uint8))
    options = {"progressive": True, "optimize": True} if file_format == "JPEG" else {}
    assert excess(saved(large, file_format, **options)) == ""
    assert excess(saved(large, "TIFF", compression="tiff_lzw")) == ""


def test_scans_are_those_of_the_film_and_not_of_its_preview_or_of_what_follows() -> None:
    plain = saved(NOISE, "JPEG")
    preview = b"\xff\xe1" + struct.pack(">H", 2 + len(plain)) + plain
    many = plain[:2] + preview * (MOST_SCANS + 1) + plain[2:] + SCAN * 100
    assert excess(many) == ""
    assert not has_several_scans(many)
    assert has_several_scans(PROGRESSIVE)
    assert np.array_equal(decode_film(many), decode_film(plain))


def test_a_baseline_jpeg_of_one_scan_a_color_counts_its_coefficients() -> None:
    # OpenCV and Pillow write interleaved scans only, so the scans of a progressive file stand in.
    interleaved = saved(COLOR, "JPEG", subsampling=0)
    image = Image.open(io.BytesIO(interleaved))
    one = decode_cost.decoding(image, interleaved)
    several = interleaved[:-2] + SCAN + struct.pack(">H", 2) + interleaved[-2:]
    assert decode_cost.decoding(image, several) == one + 2 * 3 * NOISE.size


@pytest.mark.parametrize("data", [b"", b"II", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"\xff\xd8\xff"])
def test_a_file_that_ends_early_has_no_parts_too_many(data: bytes) -> None:
    assert excess(data) == ""
