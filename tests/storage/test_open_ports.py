"""Every port on which `python -m jobs s3` listens, and what it answers without keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from jobs.storage.s3 import Store
from jobs.storage.s3_client import S3Settings
from tests.support.films import ROOT
from tests.support.open_ports import answers, leaks, listening, paths_to

pytestmark = pytest.mark.slow

KEY = "films/of-a-patient.png"
FILM = os.urandom(100_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, S3Settings, Path]]:
    """(pid, settings, data) of `python -m jobs s3` with a film."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "jobs", "s3", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        endpoint = process.stdout.readline().strip().removeprefix("export AWS_ENDPOINT_URL=")
        keys = json.loads((folder / "credentials.json").read_text())
        settings = S3Settings(endpoint, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])
        Store(settings).write(f"s3://lung/{KEY}", FILM)
        yield process.pid, settings, folder / "data"
        process.terminate()


def test_no_port_answers_with_a_films_bytes_its_name_or_a_key(
    server: tuple[int, S3Settings, Path],
) -> None:
    pid, settings, data = server
    first = urlsplit(settings.endpoint_url).port or 0
    sockets = listening(pid)
    # S3, master, volume and filer, and the gRPC of each.
    assert [port - first for _, port in sockets] == [0, 1, 2, 3, 10000, 10001, 10002, 10003]
    assert {address for address, _ in sockets} == {"127.0.0.1"}
    paths = paths_to(data, KEY)
    assert any("," in path for path in paths)  # the film's own id in its volume
    secrets = [FILM[:32], b"of-a-patient", settings.access_key.encode()]
    secrets.append(settings.secret_key.encode())
    for address, port in sockets:
        given = answers(address, port, paths)
        assert leaks(given, secrets) == [], port
        # A server of gRPC without TLS answers the preface with a frame of settings, type 4.
        assert [name for name, answer in given.items() if answer[3:4] == b"\x04"] == [], port


def test_a_leak_is_what_the_request_did_not_have_itself() -> None:
    given = {"GET /": b"<li>of-a-patient.png", f"GET /{KEY}": b"no such key: of-a-patient.png"}
    assert leaks(given, [b"of-a-patient"]) == ["GET /"]
