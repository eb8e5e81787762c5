"""A fast reader for plain PNGs, which most films and masks are; Pillow reads all other files.

A PNG is plain if it consists of whole chunks with valid checksums and nothing else, has gray of 1
or 8 bits or color of 8 bits a channel, is not interlaced and has no orientation. Its other chunks
(text, gamma, time) do not change the samples. Reading costs little more than inflating the pixels.
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
# Bits a sample, and the color type.
PLAIN_KINDS = ((1, GRAY), (8, GRAY), (8, COLOR))
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# The header of a stored block (RFC 1951, 3.2.4): is it the last, its length, the length inverted.
STORED = struct.Struct("<BHH")
# Bytes.
LARGEST_STORED = 2**16 - 1
# Chunks that may hold an EXIF or XMP orientation, and the start of such a text.
ORIENTED = (b"eXIf", b"iTXt", b"zTXt")
ORIENTED_TEXT = (b"Raw profile", b"XML:")

# The most bytes that one byte of a deflate stream holds (zlib's technical details), rounded up.
MOST_INFLATED = 1032

Part = bytes | memoryview


@dataclass(frozen=True)
class PlainPng:
    """A plain file: its size in pixels, its format and its compressed pixels."""

    height: int
    width: int
    depth: int  # bits a sample, 1 or 8
    color: int  # GRAY or COLOR
    packed: list[memoryview]  # whole IDAT chunks

    def read(self) -> NDArray[np.uint8] | NDArray[np.bool_] | None:
        """The samples: uint8 (H, W), BGR uint8 (H, W, 3), or bool (H, W) if they have 1 bit.

        None if the compressed pixels are damaged or too few.
        """
        # PNG filters bytes: 8 pixels of 1 bit are decoded as 1 pixel of 8 bits, at an eighth of
        # the cost.
        columns = self.width if self.depth == 8 else -(-self.width // 8)
        rows = self._rows(self.height * (1 + columns * (3 if self.color == COLOR else 1)))
        if rows is None:
            return None
        header = HEADER.pack(columns, self.height, 8, self.color, 0, 0, 0)
        chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", *_stored(rows)), _chunk(b"IEND")
        data = b"".join((SIGNATURE, *itertools.chain.from_iterable(chunks)))
        # Large films are decoded in half the memory.
        del rows, chunks
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            return None
        samples = np.asarray(decoded, dtype=np.uint8)
        if self.depth == 8:
            return samples
        return np.unpackbits(samples, axis=1, count=self.width).view(np.bool_)

    def _rows(self, length: int) -> memoryview | None:
        """The inflated rows, still filtered: `length` bytes, or None if there are fewer.

        ISA-L inflates in two fifths of the time of OpenCV's zlib; OpenCV then only undoes the
        filters.
        """
        packed_bytes = sum(map(len, self.packed))
        if length > MOST_INFLATED * packed_bytes:
            return None
        stream = isal_zlib.decompressobj()
        try:
            rows = stream.decompress(b"".join(chunk[8:-4] for chunk in self.packed), length)
            # After the last row the stream has more bytes, or a valid checksum and its end.
            more = stream.decompress(stream.unconsumed_tail, 1)
        except isal_zlib.error:  # type: ignore[misc]  # its stub names an instance
            return None
        return memoryview(rows) if len(rows) == length and (more or stream.eof) else None


def open_plain(data: bytes) -> PlainPng | None:
    """The file if it is plain and intact to its last byte, else None; its pixels are not read."""
    chunks = list(_chunks(data))
    if len(chunks) < 3 or chunks[0][0] != b"IHDR" or chunks[-1][0] != b"IEND":
        return None
    if sum(len(chunk) for _, chunk in chunks) != len(data) - len(SIGNATURE):
        return None
    header = chunks[0][1][8:-4]
    if len(header) != HEADER.size or any(_is_special(kind, chunk[8:-4]) for kind, chunk in chunks):
        return None
    width, height, depth, color, *methods = HEADER.unpack(header)
    if (depth, color) not in PLAIN_KINDS or methods != [0, 0, 0] or not width * height:
        return None
    packed = [chunk for kind, chunk in chunks if kind == b"IDAT"]
    return PlainPng(height, width, depth, color, packed)


def pixels_only(data: bytes) -> bytes | None:
    """The PNG with its header and pixels alone, or None where a chunk before its end is damaged.

    OpenCV believes the length of each chunk and inflates profiles and texts.
    """
    chunks = list(_chunks(data))
    if not chunks or chunks[-1][0] != b"IEND":
        return None
    kept = (chunk for kind, chunk in chunks if kind in (b"IHDR", b"IDAT", b"IEND"))
    return b"".join((SIGNATURE, *kept))


def may_be_turned(data: bytes) -> bool:
    """Whether a PNG may have an orientation, without going through its chunks: seldom wrongly."""
    return any(word in data for word in (*ORIENTED, *ORIENTED_TEXT))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(kind, whole chunk) of each chunk before the first that is truncated or damaged.

    A chunk is its length (4 bytes), its kind (4), its body and its CRC-32 (4).
    """
    view, position = memoryview(data), len(SIGNATURE)
    while data.startswith(SIGNATURE) and position + 12 <= len(data):
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        checksum = int.from_bytes(view[end - 4 : end], "big")
        if end > len(data) or isal_zlib.crc32(view[position + 4 : end - 4]) != checksum:
            return
        yield bytes(view[position + 4 : position + 8]), view[position:end]
        position = end


def _is_special(kind: bytes, body: memoryview) -> bool:
    """Whether a chunk may hold an orientation, or is critical and unknown."""
    is_critical = kind[0] & 0x20 == 0
    may_turn = kind in ORIENTED or (kind == b"tEXt" and bytes(body[:12]).startswith(ORIENTED_TEXT))
    return may_turn or (is_critical and kind not in CRITICAL)


def _stored(data: memoryview) -> Iterator[Part]:
    """A zlib stream (RFC 1950) that holds `data` uncompressed, in stored blocks."""
    yield b"\x78\x01"
    for start in range(0, len(data), LARGEST_STORED):
        block = data[start : start + LARGEST_STORED]
        is_last = start + LARGEST_STORED >= len(data)
        yield STORED.pack(is_last, len(block), LARGEST_STORED - len(block))
        yield block
    yield isal_zlib.adler32(data).to_bytes(4, "big")


def _chunk(kind: bytes, *body: Part) -> tuple[Part, ...]:
    """The parts of a chunk, from the parts of its body."""
    checksum = 0
    for part in (kind, *body):
        checksum = isal_zlib.crc32(part, checksum)
    length = sum(len(part) for part in body)
    return length.to_bytes(4, "big"), kind, *body, checksum.to_bytes(4, "big")
