"""A folder on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import AccessError, BadDataError, NotFoundError
from jobs.sources.source import check_size

log = logging.getLogger(__name__)


class FolderSource:
    """Every regular file below a folder; a link is followed only to a file inside the folder.

    Links out of the folder, links to folders and special files are skipped and logged, so that the
    folder's own files alone decide its identity.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise NotFoundError(f"folder {path} does not exist: give a folder's path")
        self.path = path.resolve()
        self._names = sorted(self._walk())

    def identity(self) -> dict[str, str]:
        """A hash of names, sizes and contents; a copy of the folder is the same source."""
        digest = hashlib.sha256()
        for name in self._names:
            with self._opened(name) as file:
                content = hashlib.file_digest(file, "sha256").digest()
                digest.update(f"{name}\0{file.tell()}\0".encode() + content)
        return {"sha256": digest.hexdigest()}

    def names(self) -> list[str]:
        return list(self._names)

    def size(self, name: str) -> int:
        with self._opened(name) as file:
            return check_size(file.name, os.fstat(file.fileno()).st_size)

    def read(self, name: str) -> bytes:
        self.size(name)
        with self._opened(name) as file:
            return file.read()

    def close(self) -> None:
        pass

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[io.BufferedReader]:
        path = str(self.path / name)
        try:
            with open(path, "rb") as file:
                yield file
        except PermissionError:
            raise AccessError(f"{path} may not be read: grant read access") from None
        except OSError as error:
            raise BadDataError(
                f"{path} cannot be read ({error.strerror}): repair or remove it"
            ) from None

    def _walk(self) -> list[str]:
        """The names of the files, in the order of the folders; logs what is skipped."""
        names: list[str] = []
        skipped: list[Path] = []
        for folder, subfolders, files in os.walk(self.path, onerror=_raise_access_error):
            # os.walk lists a link to a folder among the subfolders and does not enter it.
            skipped += [link for name in subfolders if (link := Path(folder, name)).is_symlink()]
            for path in (Path(folder, name) for name in files):
                if self._is_inside(path):
                    names.append(self._name(path))
                else:
                    skipped.append(path)
        if skipped:
            kinds = "links out of the folder, links to folders or special files"
            log.warning(
                "%s: skipped %d %s, such as %s", self.path, len(skipped), kinds, min(skipped)
            )
        return names

    def _is_inside(self, path: Path) -> bool:
        """Whether a path is a regular file inside the folder, or a link to one."""
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(self.path):
            return False
        return path.is_file()

    def _name(self, path: Path) -> str:
        name = path.relative_to(self.path).as_posix()
        # Manifests are UTF-8; a file system of Linux allows any bytes in a name.
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadDataError(f"the name of {name!r} is not UTF-8: rename the file") from None
        return name


def _raise_access_error(error: OSError) -> None:
    raise AccessError(f"folder {error.filename} may not be listed: grant read access") from None
