"""A real S3 server for one machine: SeaweedFS's `weed` from its PyPI wheel, ended with its owner.

The jobs know nothing of it but the standard AWS variables that it yields.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jobs.errors import ConfigError, JobError, ServiceUnavailableError
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

BUCKET = "lung"
SERVICES = 5  # s3, master, volume, filer, admin: ports P to P+4, and gRPC at each + 10000
GRPC_OFFSET = 10_000
SECONDS_TO_START = 30.0
SECONDS_TO_STOP = 5.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Of the user's own S3: they would lead to it, or go with this server's keys.
FOREIGN = (
    *("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_REGION"),
    *("AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
)
NO_PROXY = ("no_proxy", "NO_PROXY")


@contextlib.contextmanager
def embedded_s3(
    folder: Path, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[dict[str, str]]:
    """Serve the objects kept in `folder` while the block runs; yield the AWS variables to use.

    The bucket `lung` is there. `port` 0 takes a free one. The server runs in its own process group
    and is ended on every way out; the kernel ends it if this process is killed. This process's
    variables of another S3 are dropped, and no proxy is asked for this one.
    Raises ServiceUnavailableError where another server has the folder or it does not start.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOREIGN:
        os.environ.pop(name, None)
    # Its sockets' paths must be short, and its own logs are no one's after it.
    with _locked(folder), tempfile.TemporaryDirectory(prefix="lung-s3-") as scratch:
        environment = _credentials(folder) | _no_proxy(_reachable(host))
        for _ in range(3):
            chosen = port or _free_port()
            environment["AWS_ENDPOINT_URL"] = f"http://{_reachable(host)}:{chosen}"
            with (folder / "weed.log").open("ab") as output:
                server = subprocess.Popen(
                    _command(folder, host, chosen),
                    env=os.environ | environment | {"TMPDIR": scratch},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                )
            try:
                if _wait_until_ready(server, environment):
                    yield environment
                    return
            finally:
                _end(server)
        raise ServiceUnavailableError(
            f"the embedded S3 server does not start: see {folder / 'weed.log'}"
        )


def _command(folder: Path, host: str, port: int) -> list[str]:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise ConfigError(
            "there is no `weed` beside this Python: install docker/requirements/local.lock"
        )
    data = folder / "data"
    data.mkdir(exist_ok=True)
    names = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")
    ports = [f"-{name}={port + offset}" for offset, name in enumerate(names)]
    off = ["webdav", "admin.ui", "s3.autoCreateBucket", "s3.iam", "master.telemetry"]
    return [
        weed,
        "mini",
        f"-dir={data}",
        f"-ip={_reachable(host)}",
        f"-ip.bind={host}",
        *ports,
        *(f"-{name}=false" for name in off),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.preStopSeconds=0",  # nobody else writes, so there is nobody to tell first
    ]


def _reachable(host: str) -> str:
    """The address that clients use where the server listens on every interface."""
    return socket.gethostbyname(socket.gethostname()) if host == "0.0.0.0" else host


def _no_proxy(host: str) -> dict[str, str]:
    """The hosts that no proxy is asked for, and `host` with them."""
    hosts = next(filter(None, map(os.environ.get, NO_PROXY)), "")
    return dict.fromkeys(NO_PROXY, ",".join(filter(None, (hosts, host))))


def _credentials(folder: Path) -> dict[str, str]:
    """The keys of this folder's server, made on first use and readable by its owner alone."""
    path = folder / "credentials.json"
    if not path.exists():
        keys = {
            "AWS_ACCESS_KEY_ID": "lung" + secrets.token_hex(8),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        partial = path.with_suffix(".partial")
        with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            json.dump(keys, file)
        partial.rename(path)
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[Any]]:
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceUnavailableError(
                f"another S3 server has {folder}: let its run finish, or stop `make s3`"
            ) from error
        yield lock


def _free_port() -> int:
    """A port P with P to P+4, and each + 10000, free on this machine now."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(30_000)
        wanted = [port + n + grpc for n in range(SERVICES) for grpc in (0, GRPC_OFFSET)]
        if all(_is_free(number) for number in wanted):
            return port
    raise ServiceUnavailableError("no ten free ports were found for the embedded S3 server")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(server: subprocess.Popen[bytes], environment: dict[str, str]) -> bool:
    """Whether the server answers a signed request with its bucket made, or ended before it did."""
    limit = time.monotonic() + SECONDS_TO_START
    with _environ(environment):
        store = Store()
    while time.monotonic() < limit and server.poll() is None:
        try:
            with socket.create_connection(_address(environment), timeout=1):
                store.ensure_bucket(f"s3://{BUCKET}")
                return True
        except (OSError, JobError):
            time.sleep(0.1)
    return False


def _address(environment: dict[str, str]) -> tuple[str, int]:
    host, port = environment["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    return host, int(port)


@contextlib.contextmanager
def _environ(changes: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end(server: subprocess.Popen[bytes]) -> None:
    """TERM to the whole group, then KILL to what is left of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(SECONDS_TO_STOP)
            return
