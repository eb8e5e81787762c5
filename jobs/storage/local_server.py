"""A real S3 server for one machine: SeaweedFS's `weed` from its PyPI wheel, ended with its owner.

Jobs reach it as any S3: `Store` takes its settings, a child process its environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from jobs import typed_json
from jobs.errors import JobError, ServiceUnavailableError
from jobs.storage import weed
from jobs.storage.s3 import Store
from jobs.storage.s3_client import DEFAULT_REGION, S3Settings
from jobs.storage.server_folder import (
    disk_errors_named,
    is_full,
    locked,
    make_private,
    scratch_folder,
)
from jobs.typed_json import Name

log = logging.getLogger(__name__)

BUCKET = "lung"
STARTS = 3
SECONDS_TO_START = 30.0
LOG_LINES = 3
LOG_BYTES = 4096
LINE_CHARACTERS = 160


class Credentials(TypedDict):
    """The content of credentials.json: the keys of a folder's server."""

    AWS_ACCESS_KEY_ID: Name
    AWS_SECRET_ACCESS_KEY: Name
    AWS_DEFAULT_REGION: Name


@contextlib.contextmanager
def embedded_s3(
    folder: Path, *, host: str = "127.0.0.1", port: int = 0, keys: tuple[str, str] | None = None
) -> Iterator[S3Settings]:
    """Serve the objects kept in `folder` while the block runs; yield the settings to reach them.

    The bucket `lung` exists. `port` 0 takes a free one; without `keys` (access key, secret key)
    the folder has its own. The server is ended however the block is left. If it ends before, a
    process that handles SIGTERM gets one, and the block ends with ServiceUnavailableError, which
    has the last lines of the server's log. The same error says where another server uses the
    folder, this one does not start, or the disk is full.
    """
    folder = folder.resolve()
    with disk_errors_named(folder):
        make_private(folder)
        with locked(folder), scratch_folder() as scratch:
            for _ in range(STARTS):
                settings = _settings(folder, _reachable(host), port or _free_port(), keys)
                server = weed.start(folder, host, settings, scratch)
                with _ended(server, folder) as is_ending:
                    if _wait_until_ready(server, settings, folder):
                        _watch(server, folder, is_ending)
                        yield settings
                        return
            raise ServiceUnavailableError(
                f"the embedded S3 server does not start: {_last_lines(folder)}"
            )


@contextlib.contextmanager
def _ended(server: weed.Services, folder: Path) -> Iterator[threading.Event]:
    """End the server after the block; an error of a block that outlived it is the server's own."""
    is_ending = threading.Event()
    try:
        yield is_ending
    except BaseException as error:
        if server.has_ended():
            raise ServiceUnavailableError(_obituary(folder)) from error
        raise
    finally:
        is_ending.set()
        server.end()
        make_private(folder)


def _watch(server: weed.Services, folder: Path, is_ending: threading.Event) -> None:
    """Stop this process by SIGTERM where the server ends before it is meant to.

    A training would notice only when it writes. A process that does not handle the signal, such as
    one that only imports this module, is left alone.
    """

    def watch() -> None:
        while not server.has_ended():
            if is_ending.wait(0.2):
                return
        if not is_ending.is_set() and callable(signal.getsignal(signal.SIGTERM)):
            log.error("%s", _obituary(folder))
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="embedded-s3", daemon=True).start()


def _obituary(folder: Path) -> str:
    return (
        f"the embedded S3 server has ended: start this again, finished work is kept; the last "
        f"lines of {_last_lines(folder)}"
    )


def _last_lines(folder: Path) -> str:
    """The log's path and its last lines, as one line."""
    path = folder / "weed.log"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    short = (" ".join(line.split())[:LINE_CHARACTERS] for line in lines[-LOG_LINES:])
    return f"{path}: {' | '.join(short)}"


# Addresses and keys


def _reachable(host: str) -> str:
    """The address that clients use where the server listens on every interface."""
    return socket.gethostbyname(socket.gethostname()) if host == "0.0.0.0" else host


def _settings(folder: Path, host: str, port: int, keys: tuple[str, str] | None) -> S3Settings:
    access_key, secret_key = keys or _keys_of(folder)
    return S3Settings(f"http://{host}:{port}", access_key, secret_key)


def _keys_of(folder: Path) -> tuple[str, str]:
    """(access key, secret key) of this folder, which only their owner may read."""
    path = folder / "credentials.json"
    if not path.exists():
        keys = {
            "AWS_ACCESS_KEY_ID": "lung" + secrets.token_hex(8),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_DEFAULT_REGION": DEFAULT_REGION,
        }
        partial = path.with_suffix(".partial")
        with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            json.dump(keys, file)
        partial.rename(path)
    remedy = "it was edited or damaged: delete it, and the next start makes new keys"
    keys = typed_json.parse(path.read_bytes(), str(path), remedy)
    typed_json.check(keys, Credentials, str(path), remedy=remedy)
    return keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"]


def _free_port() -> int:
    """A port P with P to P+3, and each + 10000, free on this machine now."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(30_000)
        if all(_is_free(number) for number in weed.ports(port)):
            return port
    raise ServiceUnavailableError("no eight free ports were found for the embedded S3 server")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


# The start


def _wait_until_ready(server: weed.Services, settings: S3Settings, folder: Path) -> bool:
    """True once a signed put is answered; False where the server ended before.

    Raises ServiceUnavailableError where the put is refused as the disk is full.
    """
    deadline = time.monotonic() + SECONDS_TO_START
    store = Store(settings)
    address = urlsplit(settings.endpoint_url)
    while time.monotonic() < deadline and not server.has_ended():
        try:
            # A connection is refused at once; boto3 would retry it for seconds.
            with socket.create_connection((address.hostname, address.port), timeout=1):
                store.ensure_bucket(f"s3://{BUCKET}")
                _check_volumes(store)
                return True
        except (OSError, JobError):
            if is_full(folder):
                raise ServiceUnavailableError("its volumes take no object") from None
            time.sleep(weed.SECONDS_BETWEEN_TRIES)
    return False


def _check_volumes(store: Store) -> None:
    """Put and delete an object: the volume server joins seconds after S3 answers its first list.

    Until then every read of what an earlier start wrote is an internal error.
    """
    probe = f"s3://{BUCKET}/.volumes"
    store.write(probe, b"1")
    store.delete([probe])
