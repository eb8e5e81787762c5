"""A real S3 server for one machine: SeaweedFS's `weed` from its PyPI wheel, ended with its owner.

Jobs reach it as any S3: `Store` takes its settings, a child process its environment.
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
from typing import IO, Any, TypedDict
from urllib.parse import urlsplit

from jobs import typed_json
from jobs.errors import ConfigError, JobError, ServiceUnavailableError
from jobs.storage.s3 import Store
from jobs.storage.s3_client import DEFAULT_REGION, S3Settings
from jobs.typed_json import Name

log = logging.getLogger(__name__)

BUCKET = "lung"
# s3, master, volume, filer: ports P to P+3, and gRPC at each + 10000.
SERVICES = 4
LOOPBACK = "127.0.0.1"
# Sections of weed's security.toml, read from variables: who shows the certificate, who demands it.
TLS_SECTIONS = [f"GRPC_{name}" for name in ("MASTER", "VOLUME", "FILER", "S3", "CLIENT")] + [
    f"HTTPS_{name}" for name in ("MASTER", "VOLUME", "FILER", "CLIENT")
]
JWT_KEYS = [
    f"WEED_JWT_{name}_KEY"
    for name in ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
]
GRPC_OFFSET = 10_000
STARTS = 3
SECONDS_TO_START = 30.0
# weed waits for its own streams to close, which takes longer than anyone wants to wait. Killed, it
# loses nothing that it acknowledged.
SECONDS_TO_STOP = 1.0
# linux/prctl.h
PR_SET_PDEATHSIG = 1


class Credentials(TypedDict):
    """The content of credentials.json: the keys of a folder's server."""

    AWS_ACCESS_KEY_ID: Name
    AWS_SECRET_ACCESS_KEY: Name
    AWS_DEFAULT_REGION: Name


@contextlib.contextmanager
def embedded_s3(folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[S3Settings]:
    """Serve the objects kept in `folder` while the block runs; yield the settings to reach them.

    The bucket `lung` exists. `port` 0 takes a free one. The server runs in its own process group
    and is ended however the block is left; on Linux the kernel ends it if this process is killed.
    Raises ServiceUnavailableError where another server uses the folder or this one does not start.
    """
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # An earlier version left films readable for every user: the folder's own mode closes them.
    folder.chmod(0o700)
    # The paths of its sockets must be short; its own logs are of no use after it.
    with _locked(folder), tempfile.TemporaryDirectory(prefix="lung-s3-") as scratch:
        for _ in range(STARTS):
            settings = _settings(folder, _reachable(host), port or _free_port())
            server = _start(folder, host, settings, scratch)
            try:
                if _wait_until_ready(server, settings):
                    yield settings
                    return
            finally:
                _end(server)
                _remove_sockets(settings)
        raise ServiceUnavailableError(
            f"the embedded S3 server does not start: see {folder / 'weed.log'}"
        )


def _start(folder: Path, host: str, settings: S3Settings, scratch: str) -> subprocess.Popen[bytes]:
    port = urlsplit(settings.endpoint_url).port
    assert port
    with (folder / "weed.log").open("ab") as output:
        return subprocess.Popen(
            _command(folder, host, port, scratch),
            # `weed` accepts the keys in its own AWS variables.
            env=settings.environment() | _private_services(Path(scratch)) | {"TMPDIR": scratch},
            umask=0o077,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _command(folder: Path, host: str, port: int, scratch: str) -> list[str]:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise ConfigError(
            "there is no `weed` beside this Python: install docker/requirements/local.lock"
        )
    data = folder / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    data.chmod(0o700)
    services = ("s3.port", "master.port", "volume.port", "filer.port")
    off = ["s3.autoCreateBucket", "s3.iam", "master.telemetry"]
    return [
        weed,
        "server",
        f"-dir={data}",
        # Only S3, which demands keys, listens where `host` says.
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        "-s3",
        f"-s3.ip.bind={host}",
        *(f"-{name}={port + offset}" for offset, name in enumerate(services)),
        *(f"-{name}=false" for name in off),
        *(f"-{name}.localSocket={scratch}/{name}.sock" for name in ("s3", "filer")),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=0",
        # No other client writes, so the volume server may stop at once.
        "-volume.preStopSeconds=0",
    ]


def _private_services(scratch: Path) -> dict[str, str]:
    """Variables by which weed's services answer one another only: a certificate and JWT keys.

    Both are made anew at each start. Without the certificate's key neither HTTP nor gRPC of
    master, volume and filer answers, and the gRPC of S3, which could add keys, does not either.
    """
    certificate, key = scratch / "certificate.pem", scratch / "key.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ConfigError("there is no `openssl`: install it, the embedded S3 server needs it")
    made = subprocess.run(
        [
            *(openssl, "req", "-x509", "-nodes", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "3650", "-subj", "/CN=lung"),
            *("-addext", f"subjectAltName=IP:{LOOPBACK}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        text=True,
        umask=0o077,
    )
    if made.returncode:
        raise ConfigError(f"`openssl req` made no certificate: {' '.join(made.stderr.split())}")
    variables = {"WEED_GRPC_CA": str(certificate), "WEED_HTTPS_CLIENT_ENABLED": "true"}
    for section in TLS_SECTIONS:
        variables[f"WEED_{section}_CERT"] = str(certificate)
        variables[f"WEED_{section}_KEY"] = str(key)
        if section.startswith("HTTPS_"):
            variables[f"WEED_{section}_CA"] = str(certificate)
    return variables | {name: secrets.token_hex(32) for name in JWT_KEYS}


def _reachable(host: str) -> str:
    """The address that clients use where the server listens on every interface."""
    return socket.gethostbyname(socket.gethostname()) if host == "0.0.0.0" else host


def _settings(folder: Path, host: str, port: int) -> S3Settings:
    """The server's address, with the keys of this folder, which only their owner may read."""
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
    return S3Settings(
        endpoint_url=f"http://{host}:{port}",
        access_key=keys["AWS_ACCESS_KEY_ID"],
        secret_key=keys["AWS_SECRET_ACCESS_KEY"],
        region=keys["AWS_DEFAULT_REGION"],
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[Any]]:
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceUnavailableError(
                f"another S3 server uses {folder}: let its run finish, or stop `make s3`"
            ) from error
        yield lock


def _free_port() -> int:
    """A port P with P to P+3, and each + 10000, free on this machine now."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(30_000)
        ports = [port + n + grpc for n in range(SERVICES) for grpc in (0, GRPC_OFFSET)]
        if all(_is_free(number) for number in ports):
            return port
    raise ServiceUnavailableError("no eight free ports were found for the embedded S3 server")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    # weed takes longer than 10 s to end on TERM; what it acknowledged is on disk by then.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_ready(server: subprocess.Popen[bytes], settings: S3Settings) -> bool:
    """True once a signed put is answered; False where the server ended before."""
    deadline = time.monotonic() + SECONDS_TO_START
    store = Store(settings)
    address = urlsplit(settings.endpoint_url)
    while time.monotonic() < deadline and server.poll() is None:
        try:
            # A connection is refused at once; boto3 would retry it for seconds.
            with socket.create_connection((address.hostname, address.port), timeout=1):
                store.ensure_bucket(f"s3://{BUCKET}")
                _check_volumes(store)
                return True
        except (OSError, JobError):
            time.sleep(0.1)
    return False


def _remove_sockets(settings: S3Settings) -> None:
    """weed puts a socket for each service's gRPC into /tmp, whatever TMPDIR is, and leaves it."""
    port = urlsplit(settings.endpoint_url).port or 0
    for number in range(port + GRPC_OFFSET, port + GRPC_OFFSET + SERVICES):
        for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{number}.sock"):
            socket_file.unlink(missing_ok=True)


def _check_volumes(store: Store) -> None:
    """Put and delete an object: the volume server joins seconds after S3 answers its first list.

    Until then every read of what an earlier start wrote is an internal error.
    """
    probe = f"s3://{BUCKET}/.volumes"
    store.write(probe, b"1")
    store.delete([probe])


def _end(server: subprocess.Popen[bytes]) -> None:
    """Send TERM to the server's process group and, where it does not end in time, KILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(SECONDS_TO_STOP)
            return
