"""The parts of an image file, counted before decoders go through them: each costs time of its own.

A file of 4 MB may have a million parts of a few bytes, and a scan of a JPEG goes over all its
pixels in some ten bytes. Files of real writers have some ten scans and a few thousand parts.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator

# Chunks of a PNG, strips or tiles of a TIFF, segments before the pixels of a JPEG.
MOST_PARTS = 100_000
# Encoders that search for the smallest progressive file try 64 scans and keep some ten.
MOST_SCANS = 64
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# A marker of a JPEG: no stuffed byte and no restart among the coded pixels.
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
START_OF_SCAN, END_OF_IMAGE, WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
# Of a TIFF and of a BigTIFF, by version: where the first directory's offset is, the kinds of that
# offset and of the number of entries, an entry's size, and its tag, type and number of values.
DIRECTORIES = {42: (4, "I", "H", 12, "HHI"), 43: (8, "Q", "Q", 20, "HHQ")}
STRIPS, TILES = 273, 324


def excess(data: bytes) -> str:
    """Which limit a PNG, JPEG or TIFF exceeds, such as "more than 100000 chunks"; else ""."""
    if data.startswith(PNG):
        return _over(_chunks(data), MOST_PARTS, "chunks")
    if data.startswith(JPEG):
        segments = itertools.takewhile(lambda marker: marker != START_OF_SCAN, _markers(data))
        return _over(segments, MOST_PARTS, "segments") or _over(_scans(data), MOST_SCANS, "scans")
    return _over(range(_strips(data)), MOST_PARTS, "strips or tiles")


def has_several_scans(data: bytes) -> bool:
    """Whether a JPEG's pixels are coded in more than one pass."""
    return sum(1 for _ in itertools.islice(_scans(data), 2)) > 1


def _over(parts: Iterator[object] | range, limit: int, name: str) -> str:
    is_over = next(itertools.islice(parts, limit, None), None) is not None
    return f"more than {limit} {name}" if is_over else ""


def _chunks(data: bytes) -> Iterator[int]:
    """The position of each chunk of a PNG: its length (4 bytes), kind (4), body, checksum (4)."""
    position = len(PNG)
    while position + 12 <= len(data):
        yield position
        position += 12 + int.from_bytes(data[position : position + 4], "big")


def _scans(data: bytes) -> Iterator[int]:
    # Most files need no walk through their pixels.
    if data.count(bytes((0xFF, START_OF_SCAN))) < 2:
        return iter((START_OF_SCAN,))
    return (marker for marker in _markers(data) if marker == START_OF_SCAN)


def _markers(data: bytes) -> Iterator[int]:
    """The code of each marker of a JPEG up to its end; a segment's content is passed over."""
    position = 2
    while match := MARKER.search(data, position):
        code, position = match[1][0], match.end()
        if code == END_OF_IMAGE:
            return
        yield code
        if code not in WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2], "big")


def _strips(data: bytes) -> int:
    """The strips or tiles that the first directory of a TIFF lists; 0 of what is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    try:
        (version,) = struct.unpack_from(f"{order}H", data, 2)
        if not order or version not in DIRECTORIES:
            return 0
        start, offset, number, size, entry = DIRECTORIES[version]
        (directory,) = struct.unpack_from(order + offset, data, start)
        (entries,) = struct.unpack_from(order + number, data, directory)
        first = directory + struct.calcsize(order + number)
        listed = (
            struct.unpack_from(order + entry, data, first + size * index)
            for index in range(min(entries, len(data)))
        )
        return max((count for tag, _, count in listed if tag in (STRIPS, TILES)), default=0)
    except (struct.error, OverflowError):
        return 0
