"""A zip archive on this machine, checked before anything is read from it."""

from __future__ import annotations

import hashlib
import lzma
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from jobs.errors import AccessError, BadDataError, NotFoundError

LARGEST_MEMBER = 2**30  # bytes; a film has at most about 50 MB
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
CHUNK = 2**20

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)


class ZipSource:
    """The members of one zip, read by any number of threads.

    Raises BadDataError, naming the member, for one that climbs out of the archive, is a link, is
    encrypted, stands twice, declares over 1 GiB or is compressed by a method not known here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sha256 = ""
        try:
            # One handle serves all threads: zipfile locks its reads, and inflating, where the time
            # goes, runs outside that lock. A handle a thread measured no faster.
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise NotFoundError(f"archive {path} does not exist: give a zip's path") from None
        except PermissionError:
            raise AccessError(f"archive {path} may not be read: grant read access to it") from None
        except DAMAGE as error:
            raise BadDataError(
                f"{path.name} is not a zip or is cut short ({error}): download or zip it again"
            ) from None
        try:
            self._members = self._checked_members()
        except BadDataError:
            self._zip.close()
            raise

    def identity(self) -> dict[str, str]:
        """The archive's own hash, so that a renamed copy is the same source."""
        if not self._sha256:
            with self.path.open("rb") as archive:
                self._sha256 = hashlib.file_digest(archive, "sha256").hexdigest()
        return {"sha256": self._sha256}

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        """The member's bytes, inflated and tested against its CRC-32."""
        member = self._members[name]
        try:
            with self._zip.open(member) as stream:
                content = stream.read()
        except DAMAGE as error:
            raise self._refusal(name, f"is damaged ({error})", "download or zip it again") from None
        if len(content) != member.file_size:
            raise self._refusal(name, "is cut short", "download or zip it again")
        return content

    def close(self) -> None:
        self._zip.close()

    def _checked_members(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            path = member.orig_filename.replace("\\", "/")
            self._check(path, member)
            if path.endswith("/"):
                continue
            name = "/".join(part for part in path.split("/") if part not in ("", "."))
            if name in members:
                raise self._refusal(name, "stands twice in the archive", "zip it again")
            members[name] = member
        return members

    def _check(self, name: str, member: zipfile.ZipInfo) -> None:
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\0" in name:
            raise self._refusal(name, "is not a relative path", "zip a folder without full paths")
        if ".." in name.split("/"):
            raise self._refusal(name, "climbs out of the archive", "zip a folder without '..'")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise self._refusal(name, "is a link", "zip the file itself in its place")
        if member.flag_bits & 0x1:
            raise self._refusal(name, "is encrypted", "zip it again without a password")
        if member.file_size > LARGEST_MEMBER:
            size = f"declares {member.file_size} bytes, over {LARGEST_MEMBER}"
            raise self._refusal(name, size, "leave it out of the archive")
        if member.compress_type not in METHODS:
            method = f"is compressed by method {member.compress_type}"
            raise self._refusal(name, method, "zip it again with deflate")

    def _refusal(self, name: str, problem: str, remedy: str) -> BadDataError:
        return BadDataError(f"{self.path.name}: member {name!r} {problem}: {remedy}")
