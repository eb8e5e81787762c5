"""Where films come from: one class a kind of place, all read in the same way."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from jobs.errors import BadDataError, ConfigError, NotFoundError

if TYPE_CHECKING:
    from jobs.sources.archive import LocalZip
    from jobs.sources.folder import FolderSource
    from jobs.storage.s3 import Store

FORMS = (
    "kaggle://OWNER/NAME[@VERSION], https://HOST/PATH.zip, file:///PATH (a zip or a folder), "
    "s3://BUCKET/PREFIX, s3://BUCKET/KEY.zip or synthetic://phantoms?films=48&seed=0"
)

MEGABYTE = 2**20
LARGEST_FILE = 128 * MEGABYTE  # an uncompressed film of 20 Mpixel in 16-bit color has 118 MB


class Source(Protocol):
    """Named files, such as an archive's members."""

    def identity(self) -> dict[str, str]:
        """What the content depends on: never a local path or a date."""

    def names(self) -> list[str]:
        """Every file's path with "/", sorted."""

    def size(self, name: str) -> int:
        """Bytes of the file, told before it is read; BadDataError where they are too many."""

    def read(self, name: str) -> bytes:
        """One file whole, from any thread; BadDataError names it where it is damaged."""

    def close(self) -> None: ...


def too_large(size: int) -> str:
    """Why a file of `size` bytes is not read, since that is done whole; "" where it is."""
    if size <= LARGEST_FILE:
        return ""
    return f"too large: {-(-size // MEGABYTE):,} MB are over {LARGEST_FILE // MEGABYTE}"


def check_size(name: str, size: int) -> int:
    """`size`, in bytes; BadDataError, by its name, for a file that is not read."""
    if reason := too_large(size):
        raise BadDataError(f"{name} is {reason}: leave it out of the source")
    return size


def split_sources(source: str) -> list[str]:
    """The URIs joined by "+"; a plus inside a path joins nothing."""
    return re.split(r"\+(?=[a-z0-9]+://)", source)


def open_source(uri: str, store: Store, scratch: Path) -> Source:
    """The source that `uri` names, one URI without "+"; nothing large is read yet.

    `store` reads s3:// sources; `scratch` is an existing folder that takes an archive whose server
    has no ranges. Raises ConfigError for a URI of no accepted form, NotFoundError for an absent
    source.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "kaggle":
        from jobs.sources.kaggle import KaggleSource

        return KaggleSource(uri, scratch)
    if scheme == "file":
        return open_local(uri)
    if scheme in ("https", "http"):
        from jobs.sources.web import open_url

        return open_url(uri, scratch)
    if scheme == "s3":
        from jobs.sources.bucket import open_bucket

        return open_bucket(uri, store)
    if scheme == "synthetic" and rest.partition("?")[0] == "phantoms":
        from jobs.phantoms.source import PhantomSource

        return PhantomSource(rest.partition("?")[2])
    raise ConfigError(f"source {uri!r} has the wrong form: give {FORMS}")


def open_local(uri: str) -> LocalZip | FolderSource:
    """The zip or the folder at file:///PATH; NotFoundError where there is none."""
    from jobs.sources.archive import LocalZip
    from jobs.sources.folder import FolderSource

    path = _local_path(uri.removeprefix("file://"))
    if path.is_dir():
        return FolderSource(path)
    if path.exists():
        return LocalZip(path)
    raise NotFoundError(
        f"source {path} does not exist: give file:///PATH of a zip or a folder on this machine "
        "(a container sees only what is mounted into it)"
    )


def _local_path(rest: str) -> Path:
    """The absolute path after file://, where %20 and a plain space both stand for a space."""
    if not rest.startswith("/"):
        absolute = os.path.abspath(rest.removeprefix("localhost/"))
        raise ConfigError(f"source file://{rest} is not absolute: give file://{absolute}")
    path = Path(rest)
    return path if path.exists() else Path(unquote(rest))
