"""The size of a WebP or a JPEG 2000 by its own header, and the memory that its decoder takes.

Pillow opens a WebP by making room for its pixels, and the box around a JPEG 2000, of which Pillow
has the size, may give another one than the pixels' own header, of which the decoder has it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

# Bytes that Pillow's decoders take, measured with Pillow 13: of a pixel of a WebP; of a pixel of a
# JPEG 2000, of a sample of one tile of it, of a block of coded samples, and of a tile.
WEBP_PIXEL, PIXEL, SAMPLE, BLOCK = 20, 4, 7, 700
TILE, TILE_CHANNEL = 6000, 1200
START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
# Of SIZ: the segment's length, capabilities, the picture's right, bottom, left and top, the tiles'
# width, height and origin, and the number of components (ISO 15444-1, A.5.1).
SIZES = struct.Struct(">HHIIIIIIIIH")
CODING, COMPONENT_CODING, START_OF_TILE, START_OF_DATA = 0xFF52, 0xFF53, 0xFF90, 0xFF93
END_OF_CODESTREAM = 0xFFD9
# Boxes of a JPEG 2000 before its pixels, and segments; writers have some five and some hundred.
MOST_BOXES, MOST_SEGMENTS = 1000, 100_000


class Canvas(NamedTuple):
    """The size in pixels, and the bytes that decoding takes at its peak."""

    width: int
    height: int
    cost: int


class _Coding(NamedTuple):
    """How a tile is coded: the area of a block of samples and of a precinct, layers, levels."""

    block: int
    precinct: int
    layers: int
    levels: int


def canvas_of(data: bytes, kind: str | None) -> Canvas | None:
    """The canvas of a file of Pillow's kind WEBP or JPEG2000; None if its header is damaged."""
    try:
        if kind == "WEBP":
            return _webp(data)
        return _jpeg_2000(data) if kind == "JPEG2000" else None
    except (struct.error, IndexError):
        return None


def _webp(data: bytes) -> Canvas | None:
    """RFC 9649: the extended header has 24 bits of width and height, the simple ones 14."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = low_width + (high_width << 16) + 1, low_height + (high_height << 16) + 1
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return Canvas(width, height, WEBP_PIXEL * width * height)


def _jpeg_2000(data: bytes) -> Canvas | None:
    is_bare = data.startswith(START_OF_CODESTREAM)
    start = 0 if is_bare else next((at for name, at in _boxes(data) if name == b"jp2c"), -1)
    if start < 0 or not data.startswith(START_OF_CODESTREAM, start):
        return None
    _, _, right, bottom, left, top, *tile_size, _, _, channels = SIZES.unpack_from(data, start + 4)
    width, height = right - left, bottom - top
    pixels = width * height
    tile = min(pixels, tile_size[0] * tile_size[1])
    if min(width, height, tile) < 1:
        return None
    tiles = -(-pixels // tile)
    codings = list(_codings(data, start + 2, 2 if channels > 256 else 1))
    if not codings:
        return None
    sample = max(SAMPLE + BLOCK / coding.block for coding in codings)
    # OpenJPEG notes which packets it has seen: of each layer, level and precinct.
    packets = max(coding.layers for coding in codings) * max(
        (coding.levels + 1) * (1 + tile // coding.precinct) for coding in codings
    )
    cost = channels * (tile * sample + 2 * packets) + PIXEL * pixels
    return Canvas(width, height, int(cost) + tiles * (TILE + TILE_CHANNEL * channels))


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The name and the content's place of each box: its length (4 bytes, or 8 more), its name (4).

    A length of 0 reaches to the file's end.
    """
    position = 0
    for _ in range(MOST_BOXES):
        length, name = struct.unpack_from(">I4s", data, position)
        content = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, content)
            content += 8
        yield name, content
        if length < content - position:
            return
        position += length


def _codings(data: bytes, start: int, component_bytes: int) -> Iterator[_Coding]:
    """How tiles are coded: the defaults, and what components and tiles have of their own."""
    for code, place in _segments(data, start):
        if code == CODING:
            layers = struct.unpack_from(">H", data, place + 2)[0]
            yield _coding(data, place + 5, layers, data[place])
        elif code == COMPONENT_CODING:
            style = place + component_bytes
            yield _coding(data, style + 1, 1, data[style])


def _coding(data: bytes, place: int, layers: int, style: int) -> _Coding:
    """From the number of levels on: the exponents of a block's sides, then those of precincts."""
    levels = data[place]
    across, down = (data[place + 1] & 15) + 2, (data[place + 2] & 15) + 2
    # Bit 0 of the style says that precincts are given; they are 2^15 pixels wide and high if not.
    given = data[place + 5 : place + 6 + levels] if style & 1 else b""
    sides = [(size & 15, size >> 4) for size in given] or [(15, 15)]
    precinct = min(2 ** (wide + high) for wide, high in sides)
    block = min(
        2 ** (min(across, max(0, wide - 1)) + min(down, max(0, high - 1))) for wide, high in sides
    )
    return _Coding(block, precinct, layers, levels)


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """The code and the content's place of each segment in the headers of file and tiles."""
    place = tile = start
    tile_length = 0
    for _ in range(MOST_SEGMENTS):
        if place + 4 > len(data):
            return
        code, length = struct.unpack_from(">HH", data, place)
        if code == END_OF_CODESTREAM:
            return
        if code == START_OF_DATA:
            # A length of 0 reaches to the end.
            if not tile_length:
                return
            place = tile + tile_length
            continue
        if code == START_OF_TILE:
            tile, (tile_length,) = place, struct.unpack_from(">I", data, place + 6)
        yield code, place + 4
        place += 2 + length
    raise struct.error("too many segments")
