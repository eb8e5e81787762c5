"""One member of a zip: its byte range, the sizes that the directory declares, its tested content.

The directory is not trusted. A member is refused if it inflates to more bytes than declared, has
bytes after the end of its deflate stream, or has another CRC-32; at most one chunk too many is
inflated before that.
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
# Signature, length of the name, length of the extra field (PKWARE APPNOTE 4.3.7).
LOCAL_HEADER = struct.Struct("<4s22xHH")
# The bit of a member's flags that marks its name as UTF-8.
IS_UTF8 = 0x800
# Bytes: the length of the extra field has 16 bits.
LONGEST_EXTRA = 2**16


class DamagedError(Exception):
    """Received bytes are not those declared; reading again may help.

    The text follows the name of the member or of the source.
    """


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member's byte range, `start` to `stop` (exclusive): a local header, then its content.

    `size` and `compressed_size` are in bytes; `raw_name` is the name as the local header has it.
    """

    start: int
    stop: int
    size: int
    compressed_size: int
    crc: int
    is_deflated: bool
    raw_name: bytes

    @classmethod
    def of(cls, info: zipfile.ZipInfo, limit: int) -> Self:
        """The member that a directory entry declares; its range must end before `limit`."""
        member = cls(
            start=info.header_offset,
            stop=limit,
            size=info.file_size,
            compressed_size=info.compress_size,
            crc=info.CRC,
            is_deflated=info.compress_type == zipfile.ZIP_DEFLATED,
            raw_name=raw_name(info),
        )
        return replace(member, stop=min(limit, member.least_stop + LONGEST_EXTRA))

    @property
    def least_stop(self) -> int:
        """The smallest possible end of the range: that of a local header without extra field."""
        return self.start + LOCAL_HEADER.size + len(self.raw_name) + self.compressed_size

    def unpack(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The content in chunks, from the chunks of the byte range.

        Raises DamagedError if the local header, the size or the CRC-32 is not the declared one.
        """
        stream = _Stream(chunks)
        signature, name_length, extra_length = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
        if signature != b"PK\3\4":
            raise DamagedError("is not at the offset that the directory declares")
        if stream.read(name_length) != self.raw_name:
            raise DamagedError("has another name in its local header")
        stream.read(extra_length)
        compressed = stream.take(self.compressed_size)
        yield from self._tested(_inflate(compressed) if self.is_deflated else compressed)

    def _tested(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        size, crc = 0, 0
        for chunk in chunks:
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
            if size > self.size:
                raise DamagedError(f"has more than the {self.size} bytes that it declares")
            yield chunk
        if size < self.size:
            raise DamagedError(f"has {size} of the {self.size} bytes that it declares")
        if crc != self.crc:
            raise DamagedError("is damaged: its CRC-32 differs")


def raw_name(info: zipfile.ZipInfo) -> bytes:
    """The bytes of the name in the directory; zipfile decodes names without the flag as CP437."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & IS_UTF8 else "cp437")


class _Stream:
    """Chunks of any length, read by a number of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, count: int) -> bytes:
        return b"".join(self.take(count))

    def take(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes in chunks; DamagedError if the stream ends before."""
        while count:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                raise DamagedError("is truncated")
            chunk, self._rest = chunk[:count], chunk[count:]
            count -= len(chunk)
            yield chunk


def _inflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a raw deflate stream (RFC 1951), at most CHUNK at a time."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                yield inflater.decompress(rest, CHUNK)
                # zlib would collect all bytes that follow the stream in memory.
                if inflater.unused_data:
                    raise DamagedError("has bytes after the end of its deflate stream")
                rest = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as error:
        raise DamagedError(f"is damaged ({error})") from None
