"""One member of a zip: where it lies, what the directory declares of it, and its bytes tested.

The directory is not believed: a member that holds more than it declares, goes on behind its deflate
stream or has other bytes than its CRC-32 is refused before more than a chunk too many was inflated.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from jobs.sources.byte_ranges import CHUNK

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
IS_UTF8 = 0x800  # a member's flag
LONGEST_EXTRA = 2**16


class DamagedError(Exception):
    """The bytes are not those that the directory declares; the text goes after the name."""


@dataclass(frozen=True, slots=True)
class Member:
    """`start` to `stop` (exclusive) is its extent: a header of its own, then `packed` bytes."""

    start: int
    stop: int
    size: int
    packed: int
    crc: int
    is_deflated: bool
    raw_name: bytes  # as its own header has it

    @classmethod
    def of(cls, info: zipfile.ZipInfo, limit: int) -> Self:
        """The member that `info` declares, which has to end before `limit`."""
        encoding = "utf-8" if info.flag_bits & IS_UTF8 else "cp437"
        member = cls(
            start=info.header_offset,
            stop=limit,
            size=info.file_size,
            packed=info.compress_size,
            crc=info.CRC,
            is_deflated=info.compress_type == zipfile.ZIP_DEFLATED,
            raw_name=info.orig_filename.encode(encoding),
        )
        return replace(member, stop=min(limit, member.least_stop + LONGEST_EXTRA))

    @property
    def least_stop(self) -> int:
        """Where its extent ends at the earliest, with no extra field in its own header."""
        return self.start + LOCAL_HEADER.size + len(self.raw_name) + self.packed

    def unpack(self, extent: Iterator[bytes]) -> Iterator[bytes]:
        """The content in chunks, out of the extent's; DamagedError where it is another."""
        pieces = _Pieces(extent)
        signature, name_length, extra_length = LOCAL_HEADER.unpack(
            b"".join(pieces.take(LOCAL_HEADER.size))
        )
        if signature != b"PK\3\4":
            raise DamagedError("is not where the directory says")
        if b"".join(pieces.take(name_length)) != self.raw_name:
            raise DamagedError("bears another name in its own header")
        for _ in pieces.take(extra_length):
            pass
        packed = pieces.take(self.packed)
        yield from self._tested(_inflate(packed) if self.is_deflated else packed)

    def _tested(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        size, crc = 0, 0
        for piece in pieces:
            size, crc = size + len(piece), zlib.crc32(piece, crc)
            if size > self.size:
                raise DamagedError(f"holds more than the {self.size} bytes that it declares")
            yield piece
        if size < self.size:
            raise DamagedError(f"holds {size} of the {self.size} bytes that it declares")
        if crc != self.crc:
            raise DamagedError("is damaged: its CRC-32 differs")


class _Pieces:
    """A stream of chunks, taken by the number of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def take(self, count: int) -> Iterator[bytes]:
        while count:
            piece = self._left or next(self._chunks, b"")
            if not piece:
                raise DamagedError("is cut short")
            piece, self._left = piece[:count], piece[count:]
            count -= len(piece)
            yield piece


def _inflate(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Deflate undone, at most CHUNK bytes at a time however well they were packed."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            rest = piece
            while rest:
                yield inflater.decompress(rest, CHUNK)
                if inflater.unused_data:  # zlib would keep all that follows
                    raise DamagedError("goes on behind the end of its deflate stream")
                rest = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as error:
        raise DamagedError(f"is damaged ({error})") from None
