"""How SeaweedFS's `weed` is started: S3 for clients, its other services for one another only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from jobs.errors import ConfigError
from jobs.storage.s3_client import S3Settings

LOOPBACK = "127.0.0.1"
# Ports P to P+3, and gRPC at each + 10000.
SERVICES = ("s3", "master", "volume", "filer")
GRPC_OFFSET = 10_000
# Sections of weed's security.toml, read from variables: who shows the certificate, who demands it.
TLS_SECTIONS = [f"GRPC_{name}" for name in ("MASTER", "VOLUME", "FILER", "S3", "CLIENT")] + [
    f"HTTPS_{name}" for name in ("MASTER", "VOLUME", "FILER", "CLIENT")
]
JWT_KEYS = [
    f"WEED_JWT_{name}_KEY"
    for name in ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
]
# weed waits for its own streams to close, which takes longer than anyone wants to wait. Killed, it
# loses nothing that it acknowledged.
SECONDS_TO_STOP = 1.0
# linux/prctl.h
PR_SET_PDEATHSIG = 1


def start(folder: Path, host: str, settings: S3Settings, scratch: Path) -> subprocess.Popen[bytes]:
    """Start `weed` on the objects in `folder`/data; its output goes to `folder`/weed.log.

    It runs in its own process group; on Linux the kernel ends it if this process is killed.
    Raises ConfigError where `weed` or `openssl` is missing.
    """
    command = _command(folder / "data", host, port_of(settings), scratch)
    # `weed` accepts the keys of S3 in AWS's own variables.
    environment = settings.environment() | _private_services(scratch) | {"TMPDIR": str(scratch)}
    with open(folder / "weed.log", "ab", opener=_private) as output:
        return subprocess.Popen(
            command,
            env=environment,
            umask=0o077,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def end(server: subprocess.Popen[bytes]) -> None:
    """Send TERM to the server's process group and, where it does not end in time, KILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(SECONDS_TO_STOP)
            return


def port_of(settings: S3Settings) -> int:
    port = urlsplit(settings.endpoint_url).port
    assert port
    return port


def ports(port: int) -> list[int]:
    """The ports of a server whose S3 listens on `port`."""
    return [port + n + grpc for n in range(len(SERVICES)) for grpc in (0, GRPC_OFFSET)]


def remove_sockets(port: int) -> None:
    """weed puts a socket for each service's gRPC into /tmp, whatever TMPDIR is, and leaves it."""
    for number in ports(port):
        for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{number}.sock"):
            with contextlib.suppress(OSError):  # another user's
                socket_file.unlink()


def _command(data: Path, host: str, port: int, scratch: Path) -> list[str]:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise ConfigError(
            "there is no `weed` beside this Python: install docker/requirements/local.lock"
        )
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
        *(f"-{name}.port={port + offset}" for offset, name in enumerate(SERVICES)),
        *(f"-{name}=false" for name in off),
        *(f"-{name}.localSocket={scratch}/{name}.sock" for name in ("s3", "filer")),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # Without peers the master leads at once, in place of waiting for their votes.
        "-master.peers=none",
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
    _make_certificate(certificate, key)
    variables = {"WEED_GRPC_CA": str(certificate), "WEED_HTTPS_CLIENT_ENABLED": "true"}
    for section in TLS_SECTIONS:
        variables[f"WEED_{section}_CERT"] = str(certificate)
        variables[f"WEED_{section}_KEY"] = str(key)
        if section.startswith("HTTPS_"):
            variables[f"WEED_{section}_CA"] = str(certificate)
    return variables | {name: secrets.token_hex(32) for name in JWT_KEYS}


def _make_certificate(certificate: Path, key: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ConfigError(
            "there is no `openssl` on the PATH: install it, by `apt-get install openssl` for "
            "instance; the embedded S3 server needs it"
        )
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


def _private(path: str, flags: int) -> int:
    """Open the file for its owner alone, also where an earlier version left it readable."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _die_with_parent() -> None:
    # weed takes longer than 10 s to end on TERM; what it acknowledged is on disk by then.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
