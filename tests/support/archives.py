"""Zip archives in memory and on disk, for the tests of sources."""

from __future__ import annotations

import binascii
import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of {name: content}, in this order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def write_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.write_bytes(zipped(members, method))
    return path


@dataclass(frozen=True)
class RawMember:
    """A stored member as its bytes are; `host` 3 is Unix, 0 MS-DOS; `volume` is its disk's number.

    Flag 0x800 marks the name as UTF-8; `extra` is the extra field of the directory.
    """

    name: bytes
    content: bytes = b"x"
    flags: int = 0
    host: int = 3
    extra: bytes = b""
    volume: int = 0


def raw_zip(*members: RawMember) -> bytes:
    """A zip by APPNOTE 4.3: unlike zipfile, it writes any bytes as a name."""
    local, directory = b"", b""
    for member in members:
        crc, size = binascii.crc32(member.content), len(member.content)
        sizes = struct.pack("<LLLH", crc, size, size, len(member.name))
        entry = struct.pack("<HHHHH", 20, member.flags, 0, 0, 0) + sizes
        directory += b"PK\1\2" + struct.pack("<BB", 20, member.host) + entry
        directory += struct.pack("<HHHHLL", len(member.extra), 0, member.volume, 0, 0, len(local))
        directory += member.name + member.extra
        local += b"PK\3\4" + entry + struct.pack("<H", 0) + member.name + member.content
    counts = struct.pack(
        "<HHHHLLH", 0, 0, len(members), len(members), len(directory), len(local), 0
    )
    return local + directory + b"PK\5\6" + counts
