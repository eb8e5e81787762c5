"""What a file is by its first bytes, for the error where it was given as something else."""

from __future__ import annotations

import bz2
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# Bytes from a file's start that decide; an ISO image has its mark at 32 KiB.
HEAD = 2**16
# A tar's first header.
TAR_BLOCK = 512

ARCHIVE_ENDINGS = (
    *(".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".gz", ".bz2", ".xz", ".zst", ".lzma"),
    *(".7z", ".rar", ".iso", ".cab", ".dmg", ".z01", ".001"),
)

ZIP_THE_FOLDER = "unpack it and give the folder, or zip the folder"
CONVERT = "convert the films to PNG or TIFF first and give these"
DOWNLOAD_AGAIN = "download or zip it again"
GIVE_FOLDER = "give the folder that holds it"
JOIN = "join the parts into one zip (7-Zip, or zip -s 0 LAST.zip --out WHOLE.zip) and give that"

Sort = Literal["archive", "dicom", "file", "text"]


@dataclass(frozen=True)
class FileKind:
    """`what` a file is, with its article; `remedy`, what to do; its `sort`."""

    what: str
    remedy: str
    sort: Sort


def _archive(name: str, remedy: str = ZIP_THE_FOLDER) -> FileKind:
    return FileKind(name, remedy, "archive")


def _file(name: str, remedy: str = GIVE_FOLDER) -> FileKind:
    return FileKind(name, remedy, "file")


ZIP = _archive("a zip", "unpack the outer one and give the inner one")
FIRST_PART = _archive("the first part of a split zip", JOIN)
TAR = _archive("a tar archive")
# May have a zip behind it.
PROGRAM = _file("a program", "if it unpacks itself, run it and give the folder")
OFFICE = _file("an Office document", "give a zip or a folder of films")

# (offset, bytes there, kind); the formats' own specifications.
MAGIC = (
    (0, b"PK\x07\x08", FIRST_PART),
    (30, b"[Content_Types].xml", OFFICE),
    (30, b"mimetypeapplication/vnd.oasis", OFFICE),
    (0, b"PK\x03\x04", ZIP),
    (0, b"7z\xbc\xaf\x27\x1c", _archive("a 7z archive")),
    (0, b"Rar!\x1a\x07", _archive("a RAR archive")),
    (0, b"MSCF", _archive("a Windows cabinet (CAB)")),
    (32769, b"CD001", _archive("an ISO disc image")),
    (0, b"\x28\xb5\x2f\xfd", _archive("a Zstandard file, such as a tar.zst")),
    (0, b"\x04\x22\x4d\x18", _archive("an LZ4 file, such as a tar.lz4")),
    (0, b"LZIP", _archive("an lzip file, such as a tar.lz")),
    (0, b"\x1f\x9d", _archive("a compressed file (.Z), such as a tar.Z")),
    (128, b"DICM", FileKind("DICOM, which is not read", CONVERT, "dicom")),
    (0, b"\x89PNG\r\n\x1a\n", _file("a PNG image")),
    (0, b"\xff\xd8\xff", _file("a JPEG image")),
    (0, b"II*\0", _file("a TIFF image")),
    (0, b"MM\0*", _file("a TIFF image")),
    (0, b"GIF8", _file("a GIF image")),
    (0, b"%PDF-", _file("a PDF", "give a zip or a folder of films")),
    (0, b"\xd0\xcf\x11\xe0", OFFICE),
    (0, b"MZ", PROGRAM),
)

# Compressed files that may hold a tar; each function returns the first bytes of the content.
COMPRESSED: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gz", lambda head: zlib.decompressobj(31).decompress(head, TAR_BLOCK)),
    (b"BZh", "bz2", lambda head: bz2.BZ2Decompressor().decompress(head, TAR_BLOCK)),
    (b"\xfd7zXZ\0", "xz", lambda head: lzma.LZMADecompressor().decompress(head, TAR_BLOCK)),
)

TEXTS = (
    (
        rb"version https://git-lfs\.github\.com/spec",
        "the pointer of a file in Git LFS",
        "run git lfs pull and give the file itself",
    ),
    (
        rb"(?i)<!doctype html|<html|<head|<body|<script",
        "an HTML page, perhaps of a login",
        "give a URL that serves the file without a login, or download it in a browser",
    ),
    (rb"(?s)<\?xml|<[A-Za-z]", "an XML text, perhaps a server's error", DOWNLOAD_AGAIN),
    (rb"[{\[]", "a JSON text, perhaps a server's error", DOWNLOAD_AGAIN),
)


def kind_of(head: bytes) -> FileKind | None:
    """The kind of a file by its first HEAD bytes or fewer; None where they do not say."""
    if not head:
        return FileKind("an empty file", DOWNLOAD_AGAIN, "text")
    for offset, magic, kind in MAGIC:
        if head.startswith(magic, offset):
            return kind
    if is_tar(head):
        return TAR
    return _compressed(head) or _text(head)


def is_tar(head: bytes) -> bool:
    """Whether the first header is a tar's, by its checksum: tars before 1988 have no magic."""
    try:
        tarfile.TarInfo.frombuf(head[:TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _compressed(head: bytes) -> FileKind | None:
    for magic, ending, first_bytes in COMPRESSED:
        if not head.startswith(magic):
            continue
        try:
            content = first_bytes(head)
        except (zlib.error, lzma.LZMAError, OSError, EOFError):
            content = b""
        if is_tar(content):
            return _archive(f"a tar.{ending} archive")
        remedy = "unpack it and give what it holds, a zip or a folder"
        return _archive(f"a compressed file (.{ending})", remedy)
    return None


def _text(head: bytes) -> FileKind | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, what, remedy in TEXTS:
        if re.match(pattern, start):
            return FileKind(what, remedy, "text")
    # Control characters other than tab, line feed, form feed and carriage return.
    if re.search(rb"[\x00-\x08\x0b\x0e-\x1f]", head):
        return None
    return FileKind("a text", "give a zip or a folder of films", "text")
