"""The embedded S3 server's folders: private, used by one server at a time, and named when full."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import AccessError, ConfigError, ServiceUnavailableError

# What a full disk and a quota answer.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# What a path answers below a file or below /proc, on a disk that is read-only, and with long names.
NO_PLACE = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EROFS, errno.ENAMETOOLONG)
# weed takes no object where less than this share of its disk is free (its -volume.minFreeSpace),
# nor can it write one of some megabytes where less than these bytes are.
LEAST_FREE_SHARE = 0.01
LEAST_FREE_BYTES = 4 * 2**20
SCRATCH = "lung-s3-"


def make_private(folder: Path) -> None:
    """Create the server's folder with its data, and close both to all other users.

    An earlier version left films readable for every user, and weed gives some files wider rights.
    Raises ConfigError where no folder can be made at that path.
    """
    data = folder / "data"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        raise ConfigError(
            f"{folder}: no folder can be made there ({error.strerror}): give another --folder"
        ) from None
    folder.chmod(0o700)
    for parent, _, names in os.walk(data):
        os.chmod(parent, 0o700)
        for name in names:
            os.chmod(os.path.join(parent, name), 0o600)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep the folder for one server; ServiceUnavailableError where another one uses it."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceUnavailableError(
                f"another S3 server uses {folder}: let its run finish, or stop `make s3`"
            ) from error
        yield


# The disk


@contextlib.contextmanager
def disk_errors_named(folder: Path) -> Iterator[None]:
    """An error of the block as one that names the full disk, or the path that cannot be written."""
    try:
        yield
    except ServiceUnavailableError as error:
        if not is_full(folder):
            raise
        # Its remedy, behind the last colon, is for an S3 elsewhere.
        problem = str(error).rpartition(": ")[0] or str(error)
        raise ServiceUnavailableError(f"{_no_space(folder)} ({problem})") from error
    except PermissionError as error:
        raise AccessError(f"{error}: give --folder where this user may write") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"{error}: remove it, or give another folder") from error
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise ServiceUnavailableError(_no_space(Path(error.filename or folder))) from error


def is_full(folder: Path) -> bool:
    """Whether the disk of `folder` has too little space for another object."""
    usage = shutil.disk_usage(_existing(folder))
    return usage.free < max(LEAST_FREE_SHARE * usage.total, LEAST_FREE_BYTES)


def _no_space(path: Path) -> str:
    usage = shutil.disk_usage(_existing(path))
    return (
        f"no space on the disk of {path}: {usage.free / 1e6:.1f} MB of {usage.total / 1e6:.1f} MB "
        "are free: free some, or use a larger disk (--folder, TMPDIR), then start this again"
    )


def _existing(path: Path) -> Path:
    return next(part for part in (path, *path.absolute().parents) if part.exists())


# The temporary folder


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for a server's sockets and keys, removed after the block.

    It lies in the temporary folder, as the paths of sockets must be short. Its file `owner` is
    locked while this process lives. What owners that were killed left is removed.
    """
    _sweep()
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as name:
        scratch = Path(name)
        with (scratch / "owner").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            owner.write(f"{os.getpid()}\n")
            owner.flush()
            yield scratch


def _sweep() -> None:
    for scratch in Path(tempfile.gettempdir()).glob(SCRATCH + "*"):
        # Another user's folder is left alone, and so is one whose owner lives or removes it now.
        with contextlib.suppress(OSError), (scratch / "owner").open() as owner:
            if os.fstat(owner.fileno()).st_uid != os.getuid():
                continue
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An owner that has written nothing may be about to lock the file.
            if owner.read():
                shutil.rmtree(scratch)
