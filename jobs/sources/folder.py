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
