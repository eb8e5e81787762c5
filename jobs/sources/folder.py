"""A folder on this machine."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from jobs.errors import AccessError, BadDataError, NotFoundError

log = logging.getLogger(__name__)


class FolderSource:
    """Every regular file under a folder; a link is followed only to a file inside the folder.

    Links that lead out, links to folders and anything that is not a file are passed over and
    logged, so that a folder's content is what lies in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise NotFoundError(f"folder {path} does not exist: give a folder's path")
        self.path = path.resolve()
        self._names = sorted(self._walk())

    def identity(self) -> dict[str, str]:
        """A hash of names, sizes and contents: the same files elsewhere are the same source."""
        digest = hashlib.sha256()
        for name in self._names:
            content = self.read(name)
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(hashlib.sha256(content).digest())
        return {"sha256": digest.hexdigest()}

    def names(self) -> list[str]:
        return list(self._names)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except PermissionError:
            raise AccessError(f"{self.path / name} may not be read: grant read access") from None
        except OSError as error:
            raise BadDataError(
                f"{self.path / name} cannot be read ({error.strerror}): repair or remove it"
            ) from None

    def size(self, name: str) -> int:
        return (self.path / name).stat().st_size

    def close(self) -> None:
        pass

    def _walk(self) -> list[str]:
        names, passed_over = [], []
        for folder, folders, files in os.walk(self.path, onerror=_refuse):
            # os.walk lists a link to a folder among the folders and does not enter it.
            passed_over += [p for f in folders if (p := Path(folder, f)).is_symlink()]
            for path in (Path(folder, file) for file in files):
                if self._holds(path):
                    names.append(self._name(path))
                else:
                    passed_over.append(path)
        if passed_over:
            log.warning(
                "passed over in %s: %d links that lead out, links to folders or special files, "
                "such as %s", self.path, len(passed_over), min(passed_over)
            )  # fmt: skip
        return names

    def _holds(self, path: Path) -> bool:
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(self.path):
            return False
        return path.is_file()

    def _name(self, path: Path) -> str:
        name = path.relative_to(self.path).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadDataError(f"the name of {name!r} is not UTF-8: rename the file") from None
        return name


def _refuse(error: OSError) -> None:
    raise AccessError(f"folder {error.filename} may not be listed: grant read access") from None
