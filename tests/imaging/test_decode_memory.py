"""What a small file may make decoding take: judged by its header and its bytes, then measured."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from jobs.imaging import decode
from jobs.imaging.decode import ImageError, decode_film, decode_mask
from jobs.imaging.masks import LARGEST_SHEET
from tests.support.films import ROOT
from tests.support.image_files import (
    COLOR,
    COLOR_MASK,
    GRAY_PNG,
    NOISE,
    RGB_PNG,
    RGBA_PNG,
    chunk,
    png,
    png_header,
    png_orientation,
    saved,
)

SIDE = 10_000  # 100 megapixels, the most that is read
# Bytes over the job's usual memory that a file under 4 MB may take.
BOUND = 2**30
END = chunk(b"IEND", b"")

MEASURE = """
import resource, sys
from pathlib import Path
from jobs.imaging import decode
from jobs.runtime.memory import keep_freed_memory
keep_freed_memory()
data = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    getattr(decode, sys.argv[2])(data, *map(int, sys.argv[3:]))
except decode.ImageError:
    pass
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def zeros(size: int) -> bytes:
    """A zlib stream of `size` zeros, a thousandth of them."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    parts = [packer.compress(block[: size - start]) for start in range(0, size, len(block))]
    return b"".join((*parts, packer.flush()))


def black_png(depth: int, color: int, channels: int, side: int = SIDE) -> bytes:
    rows = zeros(side * (1 + side * channels * depth // 8))
    return png_header(side, side, depth, color) + chunk(b"IDAT", rows) + END


def turned_deep_png() -> bytes:
    """16-bit color of 59 megapixels with an orientation, which OpenCV decodes as a whole."""
    data = black_png(16, RGB_PNG, 3, side=7_700)
    return data[: -len(END)] + png_orientation(3) + END


def deep_tiff() -> bytes:
    samples = np.zeros((7_700, 7_700, 3), np.uint16)
    return cv2.imencode(".tiff", samples, [cv2.IMWRITE_TIFF_COMPRESSION, 8])[1].tobytes()


def lying_png(length: int = 0x7FFFFFF0) -> bytes:
    """16-bit color whose pixels are whole and whose chunk claims two gigabytes."""
    rows = zlib.compress(bytes(20 * (1 + 20 * 6)))
    checksum = struct.pack(">I", zlib.crc32(b"IDAT" + rows))
    return (
        png_header(20, 20, 16, RGB_PNG) + struct.pack(">I", length) + b"IDAT" + rows + checksum
    ) + END


def black(mode: str, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(buffer, file_format, **options)
    return buffer.getvalue()


def black_of(megapixels: int, mode: str, file_format: str, **options: Any) -> bytes:
    """A black picture of so many megapixels, nearly: about the most that is decoded."""
    side = int((megapixels * 10**6) ** 0.5) // 4 * 4
    return saved(Image.new(mode, (side, side)), file_format, **options)


def black_bmp() -> bytes:
    """Run lengths that skip 255 rows at a time."""
    rows = b"\0\2\0\xff" * 40 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, len(rows), 0, 0, 1, 0)
    return b"BM" + struct.pack("<IHHI", 58 + len(rows), 0, 0, 58) + header + bytes(4) + rows


def resized_jpeg(mode: str, side: int) -> bytes:
    """A progressive JPEG of 16 x 16 pixels that claims `side` x `side`."""
    data = bytearray(saved(Image.new(mode, (16, 16)), "JPEG", progressive=True))
    start = data.index(b"\xff\xc2") + 5
    data[start : start + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def tiled_tiff(side: int) -> bytes:
    """A deflated TIFF of 64 x 64 pixels in one tile of `side` x `side`."""
    fields = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1}
    fields |= {322: side, 323: side, 324: 0, 325: 100}
    fields[324] = 8 + 2 + 12 * len(fields) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, fields[tag]) for tag in sorted(fields))
    directory = struct.pack("<H", len(fields)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + zlib.compress(bytes(1000))


WORST: dict[str, Callable[[], bytes]] = {
    "a chunk that claims 2 GB": lying_png,
    "PNG, color of 8 bits": lambda: black_png(8, RGB_PNG, 3),
    "PNG, color of 16 bits": lambda: black_png(16, RGB_PNG, 3, side=9_400),
    "PNG, color of 16 bits with alpha": lambda: black_png(16, RGBA_PNG, 4, side=8_700),
    "PNG, color of 16 bits, turned": turned_deep_png,
    "TIFF, color of 16 bits": deep_tiff,
    "PNG, gray of 16 bits": lambda: black_png(16, GRAY_PNG, 1),
    "JPEG, four colors, progressive": lambda: black("CMYK", "JPEG", progressive=True),
    "JPEG, progressive, not subsampled": lambda: black(
        "RGB", "JPEG", progressive=True, subsampling=0
    ),
    "TIFF, 32 bits": lambda: black("I", "TIFF", compression="tiff_adobe_deflate"),
    "TIFF, four colors": lambda: black("CMYK", "TIFF", compression="tiff_adobe_deflate"),
    "a tile of 1.6 gigapixels": lambda: tiled_tiff(40_000),
    "JPEG 2000, gray": lambda: black_of(96, "L", "JPEG2000"),
    "JPEG 2000, four channels": lambda: black_of(33, "RGBA", "JPEG2000"),
    "JPEG 2000, tiny blocks": lambda: black_of(19, "L", "JPEG2000", codeblock_size=(4, 4)),
    "JPEG 2000, tiny tiles": lambda: black_of(1, "L", "JPEG2000", tile_size=(4, 4)),
    "WebP": lambda: black_of(53, "RGB", "WEBP", lossless=True),
    "GIF": lambda: black("P", "GIF"),
    "BMP, run lengths": black_bmp,
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("function", ["decode_film", "decode_mask"])
@pytest.mark.parametrize("name", WORST)
def test_no_file_under_four_megabytes_takes_a_gigabyte(
    name: str, function: str, tmp_path: Path
) -> None:
    assert taken(WORST[name](), tmp_path / "film", function) < BOUND


def taken(data: bytes, path: Path, *arguments: str) -> int:
    """Bytes by which a decoder raises the peak of a process of its own."""
    assert len(data) < 4 * 10**6
    path.write_bytes(data)
    command = [sys.executable, "-c", MEASURE, str(path), *arguments]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(process.stdout)


# Bytes of a pixel as it is returned: a film's luma, a mask's colors with the lungs in them; of 16
# bits all samples before that.
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize(
    ("name", "function", "pixel"),
    [
        ("PNG, color of 8 bits", "decode_film", 1),
        ("PNG, color of 8 bits", "decode_mask", 3 + 1),
        ("PNG, color of 16 bits", "decode_film", 6 + 1),
        ("PNG, color of 16 bits", "decode_mask", 6 + 3),
    ],
)
def test_a_large_plain_png_takes_its_samples_and_a_quarter_of_a_gigabyte(
    name: str, function: str, pixel: int, tmp_path: Path
) -> None:
    most = pixel * SIDE**2 + 2**28
    assert taken(WORST[name](), tmp_path / "film", function) < most


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_a_contact_sheet_of_a_size_that_no_job_draws_is_not_decoded(tmp_path: Path) -> None:
    data = black_png(8, RGB_PNG, 3)
    assert taken(data, tmp_path / "sheet", "decode_rgb", str(LARGEST_SHEET)) < 2**25


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png_header(SIDE, SIDE, 16, RGB_PNG) + chunk(b"IDAT", zlib.compress(b"")) + END, "trunc"),
        (png_header(SIDE, SIDE, 8, GRAY_PNG) + chunk(b"IDAT", zlib.compress(b"")) + END, "trunc"),
        (resized_jpeg("RGB", SIDE), "truncated"),
        (resized_jpeg("CMYK", SIDE), "truncated"),
        (resized_jpeg("RGB", 65_500), "too large: 65500 x 65500 pixels are over 100 megapixels"),
        (tiled_tiff(40_000), "too large: decoding takes 1600 MB, over 1073"),
        (lying_png(), "undecodable: a damaged or unsupported PNG"),
    ],
)
def test_a_header_that_lies_is_refused_before_a_decoder_sees_the_pixels(
    data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("OpenCV was called"))
    if data != lying_png():
        monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("Pillow decoded"))
    for function in (decode_film, decode_mask):
        with pytest.raises(ImageError, match=f"^{reason}"):
            function(data)


def test_chunks_beside_the_pixels_do_not_reach_opencv_and_do_not_change_the_film() -> None:
    samples = COLOR.astype(np.uint16) * 257
    profile = chunk(b"prVt", b"x" * 1000) + chunk(b"tEXt", b"Comment\0lungs")
    plain = decode_film(png(samples, RGB_PNG))
    assert np.array_equal(decode_film(png(samples, RGB_PNG, profile)), plain)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_an_image_converted_in_stripes_is_the_image_converted_at_once(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = saved(Image.fromarray(COLOR).convert(mode), "TIFF")
    mask = saved(Image.fromarray(COLOR_MASK).convert(mode), "TIFF")
    pixels, lungs = decode_film(film), decode_mask(mask)
    monkeypatch.setattr(decode, "STRIPE", 5 * COLOR.shape[1] + 3)
    assert np.array_equal(decode_film(film), pixels)
    assert np.array_equal(decode_mask(mask), lungs)


@pytest.mark.parametrize("depth", [np.uint16, np.int32])
def test_deep_gray_in_stripes_is_the_same(depth: type, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(NOISE.astype(depth) * 257, "TIFF")
    film = decode_film(data)
    monkeypatch.setattr(decode, "STRIPE", 5 * NOISE.shape[1])
    assert np.array_equal(decode_film(data), film)


def test_the_working_bytes_follow_the_pixels_and_are_0_for_what_is_not_decoded() -> None:
    assert decode.working_bytes(saved(NOISE, "PNG")) == 2 * NOISE.size
    assert decode.working_bytes(saved(COLOR, "JPEG")) == 5 * NOISE.size
    assert decode.working_bytes(b"lungs") == decode.working_bytes(b"") == 0
