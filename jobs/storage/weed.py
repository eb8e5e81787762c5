"""How SeaweedFS's `weed` is started: S3 for clients, its other services for one another only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO
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
# In the order of their start, with the service that each asks as it starts: one that gets no answer
# then waits for seconds before it asks again.
ASKED = {"master": "", "volume": "master", "filer": "master", "s3": "filer"}
SECONDS_TO_ANSWER = 3.0
SECONDS_BETWEEN_TRIES = 0.01
# These end within milliseconds of SIGTERM.
STOPPED = ("volume", "master")
SECONDS_TO_STOP = 1.0
# linux/prctl.h
PR_SET_PDEATHSIG = 1


class Services:
    """The processes of a server, each in a process group of its own."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def add(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self._processes[name] = process

    def has_ended(self) -> bool:
        """Whether one of them has ended: without it the others are of no use."""
        return any(process.poll() is not None for process in self._processes.values())

    def end(self) -> None:
        """Stop the volume server and the master; kill the others, which would take 10 s to stop.

        Killed, a service loses nothing that it acknowledged.
        """
        for name, process in self._processes.items():
            _signal(process, signal.SIGTERM if name in STOPPED else signal.SIGKILL)
        deadline = time.monotonic() + SECONDS_TO_STOP
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
                continue
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def start(folder: Path, host: str, settings: S3Settings, scratch: Path) -> Services:
    """Start `weed` on the objects in `folder`/data; its output goes to `folder`/weed.log.

    On Linux the kernel ends its processes if this one is killed. One that does not start is left
    to `Services.has_ended`. Raises ConfigError where `weed` or `openssl` is missing.
    """
    # `weed` accepts the keys of S3 in AWS's own variables.
    environment = settings.environment() | _private_services(scratch) | {"TMPDIR": str(scratch)}
    port = port_of(settings)
    commands = _commands(folder / "data", host, port, scratch)
    services = Services()
    try:
        with open(folder / "weed.log", "ab", opener=_private) as output:
            for name, asked in ASKED.items():
                if asked:
                    _wait_until_it_answers(port + SERVICES.index(asked) + GRPC_OFFSET, services)
                services.add(name, _process(commands[name], environment, output))
    except BaseException:
        services.end()
        raise
    return services


def _process(
    command: list[str], environment: dict[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
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


def _wait_until_it_answers(grpc_port: int, services: Services) -> None:
    """Wait, though not for ever: on a full disk a service may neither answer nor end."""
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while not services.has_ended() and time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((LOOPBACK, grpc_port), timeout=1),
        ):
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


def port_of(settings: S3Settings) -> int:
    port = urlsplit(settings.endpoint_url).port
    assert port
    return port


def ports(port: int) -> list[int]:
    """The ports of a server whose S3 listens on `port`."""
    return [port + n + grpc for n in range(len(SERVICES)) for grpc in (0, GRPC_OFFSET)]


def _commands(data: Path, host: str, port: int, scratch: Path) -> dict[str, list[str]]:
    """The command of each service. `weed server` runs all in one, but sleeps 2 s before S3."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise ConfigError(
            "there is no `weed` beside this Python: install docker/requirements/local.lock"
        )
    at = {name: port + offset for offset, name in enumerate(SERVICES)}
    options = {
        "master": [
            f"-mdir={data}",
            # Without peers the master leads at once, in place of waiting for their votes.
            "-peers=none",
            "-volumeSizeLimitMB=1024",
            "-telemetry=false",
        ],
        "volume": [
            f"-dir={data}",
            f"-master={LOOPBACK}:{at['master']}",
            "-max=0",
            # No other client writes, so the volume server may stop at once.
            "-preStopSeconds=0",
        ],
        "filer": [
            f"-defaultStoreDir={data}",
            f"-master={LOOPBACK}:{at['master']}",
            f"-localSocket={scratch}/filer.sock",
        ],
        "s3": [
            f"-filer={LOOPBACK}:{at['filer']}",
            "-autoCreateBucket=false",
            "-iam=false",
            "-port.iceberg=0",
            "-port.lance=0",
            f"-localSocket={scratch}/s3.sock",
        ],
    }
    # Only S3, which demands keys, listens where `host` says.
    hosts = dict.fromkeys(SERVICES, LOOPBACK) | {"s3": host}
    return {
        name: [
            *(weed, name, f"-ip={LOOPBACK}", f"-ip.bind={hosts[name]}", f"-port={at[name]}"),
            *options[name],
        ]
        for name in SERVICES
    }


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
