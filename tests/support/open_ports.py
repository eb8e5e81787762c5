"""What a server's listening ports answer to someone without its keys.

`python -m tests.support.open_ports` serves a film by the embedded S3 server and prints the table of
docs/reliability.md. `python -m tests.support.open_ports PID DATA KEY SECRET...` prints that of a
server that runs, such as a container's (in its network: `nsenter --net --target PID`): its folder
of data, the key of an object there, and texts that no answer may have.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from jobs.storage import weed
from jobs.storage.local_server import embedded_s3
from jobs.storage.s3 import Store

SECONDS = 5.0
# The preface of HTTP/2, which gRPC starts with, and an empty frame of SETTINGS.
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
NAME = "film-of-a-patient"


def listening(pid: int) -> list[tuple[str, int]]:
    """(address, port) of each TCP socket on which the process or a child of it listens."""
    process = psutil.Process(pid)
    return sorted(
        {
            (connection.laddr.ip, connection.laddr.port)
            for member in (process, *process.children(recursive=True))
            for connection in member.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        },
        key=lambda item: item[1],
    )


def answers(host: str, port: int, paths: list[str]) -> dict[str, bytes]:
    """{request: what came back}, plain and over TLS, without keys or certificate."""
    requests = {
        f"GET {path}": f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        for path in paths
    }
    requests["HTTP/2 preface"] = HTTP2
    return {
        f"{name}{' over TLS' if tls else ''}": _answer(host, port, request, tls=tls)
        for name, request in requests.items()
        for tls in (False, True)
    }


def _answer(host: str, port: int, request: bytes, *, tls: bool) -> bytes:
    parts: list[bytes] = []
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((host, port), SECONDS))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"] if request == HTTP2 else ["http/1.1"])
            connection = stack.enter_context(context.wrap_socket(connection))
        connection.sendall(request)
        # Nothing else is sent, so an open connection of HTTP/2 needs no longer wait.
        connection.settimeout(1.0 if request == HTTP2 else SECONDS)
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def summary(data: bytes) -> str:
    """An answer in a few words."""
    if not data:
        return "nothing"
    if status := re.match(rb"HTTP/1\.[01] (\d+)", data):
        code = re.search(rb"<Code>(\w+)</Code>", data)
        return status[1].decode() + (f" {code[1].decode()}" if code else "")
    return "HTTP/2 settings" if data[3:4] == b"\x04" else repr(data[:20])


def paths_to(data: Path, key: str) -> list[str]:
    """The paths under which S3, filer and volume serve what `data` holds, and their listings."""
    folder = key.rpartition("/")[0]
    return [
        "/",
        "/?pretty=y",
        "/dir/status",
        "/dir/assign",
        "/status",
        f"/lung?list-type=2&prefix={folder}",
        f"/lung/{key}",
        f"/buckets/lung/{folder}/?pretty=y",
        f"/buckets/lung/{key}",
        *(f"/{fid}" for fid in file_ids(data)),
    ]


def file_ids(data: Path) -> Iterator[str]:
    """The id of each volume's first file, as master and filer name it: VOLUME,KEYCOOKIE in hex.

    A volume has 8 bytes of its own, then its files: cookie (4 bytes), key (8), size (4), data.
    """
    for volume in sorted(data.glob("lung_*.dat")):
        head = volume.read_bytes()[8:24]
        if len(head) == 16 and any(head[12:]):
            key = head[4:12].hex().lstrip("0")
            yield f"{volume.stem.removeprefix('lung_')},{key}{head[:4].hex()}"


def leaks(given: dict[str, bytes], secrets: list[bytes]) -> list[str]:
    """The requests whose answers have a secret that the request did not have itself."""
    return [
        request
        for request, data in given.items()
        if any(secret in data and secret not in request.encode() for secret in secrets)
    ]


def print_table(pid: int, paths: list[str], secrets: list[bytes]) -> None:
    """A row for each port: what it is, its interface, and what it answers without keys."""
    sockets = listening(pid)
    first = min(port for _, port in sockets)
    print("| port | service | interface | without keys |\n|---|---|---|---|")
    for address, port in sockets:
        host = address if address not in ("0.0.0.0", "::") else "127.0.0.1"
        given = answers(host, port, paths)
        words = ", ".join(sorted({summary(data) for data in given.values()}))
        if found := leaks(given, secrets):
            words = f"LEAK: {found}"
        grpc, offset = divmod(port - first, weed.GRPC_OFFSET)
        name = weed.SERVICES[offset] + (" gRPC" if grpc else "")
        print(f"| {port} | {name} | {address} | {words} |")


def main() -> None:
    if len(sys.argv) > 1:
        pid, data, key, *texts = sys.argv[1:]
        print_table(int(pid), paths_to(Path(data), key), [text.encode() for text in texts])
        return
    with tempfile.TemporaryDirectory() as name, embedded_s3(Path(name)) as settings:
        film = os.urandom(100_000)
        Store(settings).write(f"s3://lung/films/{NAME}.png", film)
        paths = paths_to(Path(name) / "data", f"films/{NAME}.png")
        print_table(os.getpid(), paths, [film[:32], NAME.encode(), settings.secret_key.encode()])


if __name__ == "__main__":
    main()
