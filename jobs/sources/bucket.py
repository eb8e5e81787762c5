"""Films that are already in S3: s3://BUCKET/PREFIX, or one archive s3://BUCKET/KEY.zip."""

from __future__ import annotations

import hashlib
import re

from jobs.errors import ConfigError, NotFoundError
from jobs.sources.archive import ZipSource
from jobs.sources.byte_ranges import ObjectRanges
from jobs.sources.file_kinds import ARCHIVE_ENDINGS
from jobs.sources.source import check_size
from jobs.storage.s3 import Store

# "\" in a key that is made of a file's name: SeaweedFS takes "\" in a key for "/". Cygwin and WSL
# write the character so on disks that cannot hold it.
BACKSLASH = "\uf05c"
OBJECT = r"s3://[^/]+/.*[^/]"
# Where keys are made of the names of a local folder's files.
INCOMING = re.compile(r"/incoming/[0-9a-f]{64}/$")


class BucketSource:
    """The objects below a prefix; `objects` maps the key after the prefix to the object.

    Below incoming/<sha256>/ the file's name instead of the key.

    The identity is a hash of the objects' names, sizes and ETags.
    """

    def __init__(self, uri: str, store: Store) -> None:
        self._store = store
        self._prefix = uri.rstrip("/") + "/"
        self.objects = {
            self._name(item.uri.removeprefix(self._prefix)): item
            for item in store.list_objects(self._prefix)
            # A console marks an empty folder with an empty object whose key ends in "/".
            if not item.uri.endswith("/")
        }
        if not self.objects and re.fullmatch(OBJECT, uri) and store.exists(uri):
            raise ConfigError(
                f"{uri} is one object, not a prefix: give the prefix of a folder of films, such as "
                "s3://BUCKET/FOLDER/; unpack an archive there, or give a zip to the job download"
            )
        if not self.objects:
            raise NotFoundError(f"no objects below {self._prefix}: check the bucket and the prefix")

    def identity(self) -> dict[str, str]:
        # In the order of the listing, which S3 sorts by key.
        lines = (f"{name}\t{item.bytes}\t{item.etag}\n" for name, item in self.objects.items())
        return {"listing": hashlib.sha256("".join(lines).encode()).hexdigest()}

    def names(self) -> list[str]:
        return sorted(self.objects)

    def size(self, name: str) -> int:
        return check_size(self.objects[name].uri, self.objects[name].bytes)

    def read(self, name: str) -> bytes:
        """The object as listed, verified by what S3 knows of it.

        Raises ConflictError if another object has replaced it, and the errors of a damaged read
        (see `jobs.storage.verified_read`).
        """
        self.size(name)
        return self._store.read_object(self.objects[name])

    def close(self) -> None:
        pass

    def _name(self, key: str) -> str:
        return key.replace(BACKSLASH, "\\") if INCOMING.search(self._prefix) else key


def incoming_key(name: str) -> str:
    """The key below incoming/<sha256>/ of a file of that name."""
    return name.replace("\\", BACKSLASH)


def open_bucket(uri: str, store: Store) -> BucketSource | ZipSource:
    """Open the prefix or the archive at `uri`; an archive is read by ranges, not downloaded.

    An object that is another kind of archive is refused with its kind.
    """
    ending = uri.lower()
    if ending.endswith(".zip") or (ending.endswith(ARCHIVE_ENDINGS) and store.exists(uri)):
        return ZipSource(ObjectRanges(uri, store))
    return BucketSource(uri, store)
