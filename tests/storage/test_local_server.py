"""The embedded server: its own on every way in, gone on every way out."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.errors import ServiceUnavailableError
from jobs.storage.local_server import embedded_s3
from jobs.storage.s3 import Store

SERVE = (
    "from pathlib import Path; import sys, time\n"
    "from jobs.storage.local_server import embedded_s3\n"
)
HOLD = SERVE + (
    "with embedded_s3(Path(sys.argv[1])) as e:\n print(e['AWS_ENDPOINT_URL'], flush=True)\n"
    " time.sleep(60)"
)


def servers_of(folder: Path) -> list[int]:
    """The pids of the `weed` processes that serve `folder`, from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if f"-dir={folder}/".encode() in command:
            found.append(int(entry.name))
    return found


def wait_until_gone(folder: Path, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while servers_of(folder) and time.monotonic() < limit:
        time.sleep(0.05)
    return not servers_of(folder)


def test_objects_and_keys_are_kept_from_one_server_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in range(2):
        with embedded_s3(tmp_path) as environment:
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            if attempt == 0:
                Store().write("s3://lung/kept", b"films")
                keys = environment["AWS_SECRET_ACCESS_KEY"]
            else:
                assert Store().read("s3://lung/kept") == b"films"
                assert environment["AWS_SECRET_ACCESS_KEY"] == keys
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        {"AWS_PROFILE": "hospital"},
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
        {"AWS_SESSION_TOKEN": "theirs"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_no_proxy_and_no_other_s3_of_the_users_comes_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "hospital.example")
    with embedded_s3(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        Store().write("s3://lung/kept", b"films")
        assert Store().read("s3://lung/kept") == b"films"
    assert environment["no_proxy"] == environment["NO_PROXY"] == "hospital.example,127.0.0.1"


def test_nothing_is_left_running_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), embedded_s3(tmp_path):
        assert servers_of(tmp_path)
        raise ZeroDivisionError
    assert servers_of(tmp_path) == []


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        embedded_s3(tmp_path),
        pytest.raises(ServiceUnavailableError, match="another S3 server has"),
        embedded_s3(tmp_path),
    ):
        pass


def test_the_server_ends_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline().startswith("http://127.0.0.1:")
        assert servers_of(tmp_path)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert wait_until_gone(tmp_path, seconds=10)
