"""Plain PNGs, as nearly all films and masks are, read at little over the price of unpacking them.

A file is plain when every byte of it is accounted for: whole chunks with right checksums, gray of
1 or 8 bits or color of 8 a channel, not interlaced, nothing that turns it. Whatever else it says
(text, gamma, time) does not change its samples. Other files are Pillow's.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
GRAY, COLOR = 0, 2
PLAIN_KINDS = ((1, GRAY), (8, GRAY), (8, COLOR))  # bits a sample, and what samples make a pixel
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
STORED = struct.Struct("<BHH")  # before a block of bytes that are not packed: last, length, ~length
LARGEST_STORED = 2**16 - 1
# Where a file may keep an EXIF or XMP orientation.
ORIENTED = (b"eXIf", b"iTXt", b"zTXt")
ORIENTED_TEXT = (b"Raw profile", b"XML:")

Part = bytes | memoryview


@dataclass(frozen=True)
class PlainPng:
    """A plain file's size in pixels, its bits a sample (1 or 8), GRAY or COLOR, and its pixels."""

    height: int
    width: int
    depth: int
    color: int
    packed: list[memoryview]

    def read(self) -> NDArray[np.uint8] | NDArray[np.bool_] | None:
        """The samples, uint8 (H, W), BGR uint8 (H, W, 3), or bool (H, W) where they have 1 bit.

        None where the packed pixels are damaged or too few.
        """
        # PNG filters whole bytes, so 8 pixels of 1 bit unpack as one of 8 bits, eight times as
        # fast as one by one.
        columns = self.width if self.depth == 8 else -(-self.width // 8)
        rows = self._rows(self.height * (1 + columns * (3 if self.color == COLOR else 1)))
        if rows is None:
            return None
        header = HEADER.pack(columns, self.height, 8, self.color, 0, 0, 0)
        chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", *_stored(rows)), _chunk(b"IEND")
        data = b"".join((SIGNATURE, *itertools.chain.from_iterable(chunks)))
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            return None
        samples = np.asarray(decoded, dtype=np.uint8)
        if self.depth == 8:
            return samples
        return np.unpackbits(samples, axis=1, count=self.width).view(np.bool_)

    def _rows(self, length: int) -> memoryview | None:
        """The rows, filtered still: `length` bytes, or None where there are not so many.

        ISA-L unpacks in two fifths of the time that OpenCV's zlib takes, so OpenCV is left to undo
        the filters alone.
        """
        stream = isal_zlib.decompressobj()
        try:
            rows = stream.decompress(b"".join(chunk[8:-4] for chunk in self.packed), length)
            more = stream.decompress(stream.unconsumed_tail, 1)  # or the checksum behind them
        except isal_zlib.error:  # type: ignore[misc]  # its stub names an instance
            return None
        return memoryview(rows) if len(rows) == length and (more or stream.eof) else None


def open_plain(data: bytes) -> PlainPng | None:
    """The file's header where it is plain and whole to its last byte, else None."""
    found = list(_chunks(data))
    if len(found) < 3 or found[0][0] != b"IHDR" or found[-1][0] != b"IEND":
        return None
    if sum(map(len, (chunk for _, chunk in found))) != len(data) - len(SIGNATURE):
        return None
    if any(_is_special(kind, chunk[8:-4]) for kind, chunk in found) or len(found[0][1]) != 25:
        return None
    width, height, depth, color, *others = HEADER.unpack(found[0][1][8:-4])
    if (depth, color) not in PLAIN_KINDS or others != [0, 0, 0] or not width * height:
        return None
    packed = [chunk for kind, chunk in found if kind == b"IDAT"]
    return PlainPng(height, width, depth, color, packed)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(kind, the whole chunk) of each, up to the first that is cut or has a wrong checksum."""
    view, position = memoryview(data), len(SIGNATURE)
    while data.startswith(SIGNATURE) and position + 12 <= len(data):
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        checksum = int.from_bytes(view[end - 4 : end], "big")
        if end > len(data) or isal_zlib.crc32(view[position + 4 : end - 4]) != checksum:
            return
        yield bytes(view[position + 4 : position + 8]), view[position:end]
        position = end


def _is_special(kind: bytes, body: memoryview) -> bool:
    """Whether a chunk may turn the film, or changes its pixels in a way that is not known here."""
    is_critical = kind[0] & 0x20 == 0
    is_turning = kind in ORIENTED or (
        kind == b"tEXt" and bytes(body[:12]).startswith(ORIENTED_TEXT)
    )
    return is_turning or (is_critical and kind not in CRITICAL)


def _stored(data: memoryview) -> Iterator[Part]:
    """A zlib stream (RFC 1950) of `data` as it is."""
    yield b"\x78\x01"
    for start in range(0, len(data), LARGEST_STORED):
        block = data[start : start + LARGEST_STORED]
        is_last = start + LARGEST_STORED >= len(data)
        yield STORED.pack(is_last, len(block), LARGEST_STORED - len(block))
        yield block
    yield isal_zlib.adler32(data).to_bytes(4, "big")


def _chunk(kind: bytes, *body: Part) -> tuple[Part, ...]:
    """The parts of a chunk whose body has those parts."""
    checksum = 0
    for part in (kind, *body):
        checksum = isal_zlib.crc32(part, checksum)
    length = sum(map(len, body))
    return length.to_bytes(4, "big"), kind, *body, checksum.to_bytes(4, "big")
