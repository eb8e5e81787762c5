"""Where films come from: what every kind of source offers, and the source that a URI names."""

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
# Bytes, as a file is read whole. An uncompressed film of 20 Mpixel in 16-bit color has 118 MB.
LARGEST_FILE = 128 * MEGABYTE


class Source(Protocol):
    """Named files, such as the members of an archive, read by any number of threads."""

    def identity(self) -> dict[str, str]:
        """The state of the content, for the fingerprint: never a local path or a date."""

    def names(self) -> list[str]:
        """The path of each file, with "/" between folders, sorted."""

    def size(self, name: str) -> int:
        """Bytes of a file before it is read; BadDataError above LARGEST_FILE."""

    def read(self, name: str) -> bytes:
        """A whole file; BadDataError with its name if it is damaged or above LARGEST_FILE."""

    def close(self) -> None:
        """Release files and connections."""


def too_large(size: int) -> str:
    """The reason why a file of `size` bytes is not read into memory; "" if it may be read."""
    if size <= LARGEST_FILE:
        return ""
    return f"too large: {-(-size // MEGABYTE):,} MB are over {LARGEST_FILE // MEGABYTE}"


def check_size(name: str, size: int) -> int:
    """Return `size` in bytes; BadDataError with `name` if the file is too large."""
    if reason := too_large(size):
        raise BadDataError(f"{name} is {reason}: leave it out of the source")
    return size


def split_sources(source: str) -> list[str]:
    """The URIs joined by "+"; a plus inside a path does not separate."""
    return re.split(r"\+(?=[a-z0-9]+://)", source)


def open_source(uri: str, store: Store, scratch: Path) -> Source:
    """Open the source that `uri` names, one URI without "+"; no film is read yet.

    `store` reads s3:// sources. `scratch` is an existing folder; a zip whose server has no byte
    ranges is downloaded into it. Raises ConfigError for a URI of none of the FORMS, NotFoundError
    for an absent source.
    """
    # Imported on use: the configs import this module, and the command line starts without boto3.
    scheme, _, rest = uri.partition("://")
    if scheme == "kaggle":
        from jobs.sources.kaggle import KaggleSource

        return KaggleSource(uri, scratch)
    if scheme in ("https", "http"):
        from jobs.sources.web import open_url

        return open_url(uri, scratch)
    if scheme == "file":
        return open_local(uri)
    if scheme == "s3":
        from jobs.sources.bucket import open_bucket

        return open_bucket(uri, store)
    if scheme == "synthetic" and rest.partition("?")[0] == "phantoms":
        from jobs.phantoms.source import PhantomSource

        return PhantomSource(rest.partition("?")[2])
    raise ConfigError(f"source {uri!r} has the wrong form: give {FORMS}")


def open_local(uri: str) -> LocalZip | FolderSource:
    """Open the zip or the folder at file:///PATH; NotFoundError if the path does not exist."""
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
    """The absolute path after file://, in which a space is a space or %20."""
    if not rest.startswith("/"):
        absolute = os.path.abspath(rest.removeprefix("localhost/"))
        raise ConfigError(f"source file://{rest} is not absolute: give file://{absolute}")
    path = Path(rest)
    # A name on disk may itself contain a percent sign.
    return path if path.exists() else Path(unquote(rest))
