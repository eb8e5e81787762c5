"""A fast reader for plain PNGs, which most films and masks are; Pillow reads all other files.

A PNG is plain if it consists of whole chunks with valid checksums and nothing else, has gray of 1
or 8 bits or color of 8 or 16 bits a channel, is not interlaced and has no orientation. Its other
chunks (text, gamma, time) do not change the samples. Reading costs little more than inflating the
pixels, and of a large file takes little more memory than its samples.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
GRAY, COLOR, COLOR_ALPHA = 0, 2, 6
# Bits a sample, and the color type.
PLAIN_KINDS = ((1, GRAY), (8, GRAY), (8, COLOR), (16, COLOR), (16, COLOR_ALPHA))
CHANNELS = {GRAY: 1, COLOR: 3, COLOR_ALPHA: 4}
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
# Bytes of rows that are decoded at a time, for which OpenCV makes room twice; and of the file that
# are inflated at a time.
STRIP, PIECE = 2**25, 2**20

Part = bytes | memoryview
Samples = NDArray[Any]


class TooFewRowsError(ValueError):
    """The stream of a PNG ends before its last row, or OpenCV refuses a row."""


@dataclass(frozen=True)
class PlainPng:
    """A plain file: its size in pixels, its format and its compressed pixels."""

    height: int
    width: int
    depth: int  # bits a sample: 1, 8 or 16
    color: int  # GRAY, COLOR or COLOR_ALPHA
    packed: list[memoryview]  # whole IDAT chunks

    def read(self, convert: Callable[[Samples], Samples] = lambda pixels: pixels) -> Samples | None:
        """The samples: gray as uint8 (H, W), or bool (H, W) if they have 1 bit.

        Of color with 8 bits what `convert`, which goes by pixels, makes of BGR uint8 (H, W, 3); of
        color with 16 bits BGR uint16 (H, W, 3). None if the compressed pixels are damaged or too
        few.
        """
        samples, top = None, 0
        try:
            for strip in self._strips():
                part = self._samples_of(strip, convert)
                if len(part) == self.height:
                    return part
                if samples is None:
                    samples = np.empty((self.height, *part.shape[1:]), part.dtype)
                samples[top : top + len(part)] = part
                top += len(part)
        except (isal_zlib.error, TooFewRowsError):  # type: ignore[misc]  # its stub names an instance
            return None
        return samples

    def _samples_of(self, strip: Samples, convert: Callable[[Samples], Samples]) -> Samples:
        if self.depth == 1:
            return np.unpackbits(strip, axis=1, count=self.width).view(np.bool_)
        if self.depth == 16:
            return np.ascontiguousarray(strip[:, :, :3])
        return convert(strip) if self.color == COLOR else strip

    def _strips(self) -> Iterator[Samples]:
        """The decoded rows from top to bottom, some at a time, as OpenCV has them.

        Raises TooFewRowsError or isal_zlib.error, for the last rows before they are yielded.
        """
        row_bytes = 1 + self._columns * CHANNELS[self.color] * max(1, self.depth // 8)
        if self.height * row_bytes > MOST_INFLATED * sum(map(len, self.packed)):
            raise TooFewRowsError
        stream, above = _Stream(self.packed), b""
        rows = max(1, STRIP // row_bytes)
        for top in range(0, self.height, rows):
            count = min(rows, self.height - top)
            parts = stream.take(count * row_bytes)
            if top + count == self.height:
                stream.check_end()
            strip = self._decoded(above, parts, count)
            yield strip
            if top + count < self.height:
                above = self._unfiltered(strip[-1])

    @property
    def _columns(self) -> int:
        """PNG filters bytes: 8 pixels of 1 bit are decoded as 1 pixel of 8 bits, at an eighth of
        the cost.
        """
        return self.width if self.depth > 1 else -(-self.width // 8)

    def _decoded(self, above: bytes, parts: Sequence[bytes], count: int) -> Samples:
        """`count` filtered rows, decoded by OpenCV below the row `above` them, b"" for the first.

        ISA-L inflates in two fifths of the time of OpenCV's zlib; OpenCV then only undoes the
        filters, which add to a pixel its neighbours to the left and above.
        """
        depth, height = max(8, self.depth), count + bool(above)
        header = HEADER.pack(self._columns, height, depth, self.color, 0, 0, 0)
        body = _stored([above, *parts] if above else parts)
        chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", *body), _chunk(b"IEND")
        data = b"".join((SIGNATURE, *itertools.chain.from_iterable(chunks)))
        strip = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if strip is None:
            raise TooFewRowsError
        return np.asarray(strip[height - count :])

    def _unfiltered(self, row: Samples) -> bytes:
        """A decoded row as a PNG holds it, without a filter."""
        if self.color != GRAY:
            row = row[:, [2, 1, 0, 3][: row.shape[1]]]
        return b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes()


class _Stream:
    """The inflated rows of a PNG, still filtered, some at a time."""

    def __init__(self, chunks: Iterable[memoryview]) -> None:
        self._packed = memoryview(b"".join(chunk[8:-4] for chunk in chunks))
        self._stream = isal_zlib.decompressobj()

    def take(self, length: int) -> list[bytes]:
        """The next `length` bytes, in parts; TooFewRowsError where there are fewer."""
        parts = []
        while length and (part := self._inflate(length)):
            parts.append(part)
            length -= len(part)
        if length:
            raise TooFewRowsError
        return parts

    def check_end(self) -> None:
        """After the last row the stream has more bytes, or a valid checksum and its end."""
        if not self._inflate(1) and not self._stream.eof:
            raise TooFewRowsError

    def _inflate(self, most: int) -> bytes:
        """At most `most` further bytes; b"" at the end of the stream or of the file."""
        part = b""
        while not part and not self._stream.eof:
            piece: Part = self._stream.unconsumed_tail
            if not piece:
                piece, self._packed = self._packed[:PIECE], self._packed[PIECE:]
            part = self._stream.decompress(piece, most)
            if not piece:
                break
        return part


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


def _stored(parts: Iterable[bytes]) -> Iterator[Part]:
    """A zlib stream (RFC 1950) that holds the parts uncompressed, in stored blocks."""
    yield b"\x78\x01"
    checksum = 1
    for part in parts:
        checksum = isal_zlib.adler32(part, checksum)
        view = memoryview(part)
        for start in range(0, len(view), LARGEST_STORED):
            block = view[start : start + LARGEST_STORED]
            yield STORED.pack(0, len(block), LARGEST_STORED - len(block))
            yield block
    # An empty block is the last.
    yield STORED.pack(1, 0, LARGEST_STORED)
    yield checksum.to_bytes(4, "big")


def _chunk(kind: bytes, *body: Part) -> tuple[Part, ...]:
    """The parts of a chunk, from the parts of its body."""
    checksum = 0
    for part in (kind, *body):
        checksum = isal_zlib.crc32(part, checksum)
    length = sum(len(part) for part in body)
    return length.to_bytes(4, "big"), kind, *body, checksum.to_bytes(4, "big")
