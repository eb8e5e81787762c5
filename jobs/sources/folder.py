"""A folder on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jobs.errors import AccessError, BadDataError, NotFoundError
from jobs.sources.source import check_size

log = logging.getLogger(__name__)

BROKEN, FOLDER_LINK = "links that lead nowhere", "links to a folder that is not listed there"
FILE_LINK, SPECIAL = "links out of the folder", "special files"


class FolderSource:
    """Every regular file below a folder; a link is followed only to a file inside the folder.

    Links out of the folder, links to folders and special files are skipped and logged, so that the
    folder's own files alone decide its identity; `skipped` has the reason of each by its name. With
    `follows_links` links are followed wherever they lead. Nothing below the folders of `without` is
    listed.
    """

    def __init__(
        self, path: Path, *, follows_links: bool = False, without: Iterable[Path] = ()
    ) -> None:
        if not path.is_dir():
            raise NotFoundError(f"folder {path} does not exist: give a folder's path")
        self.path = path.resolve()
        self._follows_links = follows_links
        self._without = {folder.resolve() for folder in without}
        self.skipped: dict[str, str] = {}
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
        entered = {str(self.path)}
        for folder, subfolders, files in os.walk(
            self.path, onerror=_raise_access_error, followlinks=self._follows_links
        ):
            subfolders[:] = [
                name for name in subfolders if self._enters(Path(folder, name), entered, skipped)
            ]
            for path in (Path(folder, name) for name in files):
                if self._is_read(path):
                    names.append(self._name(path))
                else:
                    skipped.append(path)
        if skipped:
            self._report_skipped(skipped, names)
        self.skipped = {self._visible_name(path): _reason(path) for path in skipped}
        return names

    def _enters(self, folder: Path, entered: set[str], skipped: list[Path]) -> bool:
        """Whether a folder is listed; notes it as entered, or as skipped if it is a link."""
        target = os.path.realpath(folder)
        if Path(target) in self._without:
            return False
        if folder.is_symlink() and (not self._follows_links or target in entered):
            skipped.append(folder)
            return False
        # A link to a folder above it would never end.
        is_new = target not in entered
        entered.add(target)
        return is_new

    def _is_read(self, path: Path) -> bool:
        """Whether a path is a regular file, or a link that is followed to one."""
        target = Path(os.path.realpath(path))
        if path.is_symlink() and not self._follows_links and not target.is_relative_to(self.path):
            return False
        return path.is_file()

    def _report_skipped(self, skipped: Sequence[Path], names: Sequence[str]) -> None:
        """Log what was skipped. Raises BadDataError where nothing else is there."""
        kinds = "broken links or special files"
        if not self._follows_links:
            kinds = "links out of the folder, links to folders or special files"
        first = min(skipped)
        example = f"{first} -> {os.readlink(first)}" if first.is_symlink() else str(first)
        if not names:
            raise BadDataError(
                f"{self.path} holds no files but {len(skipped)} {kinds}, such as {example}: copy "
                "the files to a folder (cp -rL copies what the links lead to)"
            )
        log.warning("%s: skipped %d %s, such as %s", self.path, len(skipped), kinds, example)

    def _visible_name(self, path: Path) -> str:
        return os.fsencode(path.relative_to(self.path)).decode(errors="backslashreplace")

    def _name(self, path: Path) -> str:
        name = path.relative_to(self.path).as_posix()
        # Manifests are UTF-8; a file system of Linux allows any bytes in a name.
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadDataError(f"the name of {name!r} is not UTF-8: rename the file") from None
        return name


def _reason(skipped: Path) -> str:
    if not skipped.is_symlink():
        return SPECIAL
    if not skipped.exists():
        return BROKEN
    return FOLDER_LINK if skipped.is_dir() else FILE_LINK


def _raise_access_error(error: OSError) -> None:
    raise AccessError(f"folder {error.filename} may not be listed: grant read access") from None
