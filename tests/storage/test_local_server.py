"""The embedded server: reached whatever the user's S3 settings are, ended with its owner."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import AccessError, ServiceUnavailableError
from jobs.storage.local_server import embedded_s3
from jobs.storage.s3 import Store
from jobs.storage.s3_client import S3Settings
from tests.support.films import ROOT

pytestmark = pytest.mark.slow

SERVE = (
    "from pathlib import Path; import sys, time\n"
    "from jobs.storage.local_server import embedded_s3\n"
)
HOLD = SERVE + (
    "with embedded_s3(Path(sys.argv[1])) as s:\n print(s.endpoint_url, flush=True)\n time.sleep(60)"
)


def servers_of(folder: Path) -> list[int]:
    """The pids of the `weed` processes that serve `folder`: they write its weed.log."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "fd" / "1").readlink() == folder.resolve() / "weed.log":
                pids.append(int(entry.name))
    return pids


def wait_until_gone(folder: Path, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while servers_of(folder) and time.monotonic() < limit:
        time.sleep(0.05)
    return not servers_of(folder)


def sockets_in_tmp() -> set[Path]:
    """weed's sockets where every user finds them."""
    return {path for path in Path("/tmp").glob("seaweedfs-*.sock") if path.is_socket()}


def test_objects_and_keys_are_kept_from_one_server_to_the_next(tmp_path: Path) -> None:
    with embedded_s3(tmp_path) as first:
        Store(first).write("s3://lung/kept", b"films")
    with embedded_s3(tmp_path) as second:
        assert Store(second).read("s3://lung/kept") == b"films"
    assert first.secret_key == second.secret_key
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    with embedded_s3(tmp_path_factory.mktemp("server")) as settings:
        yield settings


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        {"AWS_PROFILE": "hospital"},
        {"AWS_CONFIG_FILE": __file__},
        {"AWS_SHARED_CREDENTIALS_FILE": __file__},
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        {"AWS_SECRET_ACCESS_KEY": "theirs"},
        {"AWS_SESSION_TOKEN": "theirs"},
        {"AWS_REGION": "us_east!1"},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_DEFAULTS_MODE": "theirs"},
        {
            "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "theirs",
            "AWS_S3_USE_ARN_REGION": "theirs",
            "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH": "theirs",
            "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS": "theirs",
            "AWS_STS_REGIONAL_ENDPOINTS": "theirs",
            "AWS_EC2_METADATA_DISABLED": "theirs",
            "AWS_DISABLE_REQUEST_COMPRESSION": "theirs",
            "AWS_MAX_ATTEMPTS": "theirs",
            "AWS_RETRY_MODE": "theirs",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "theirs",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "theirs",
            "AWS_USE_DUALSTACK_ENDPOINT": "true",
            "AWS_SIGV4A_SIGNING_REGION_SET": "*",
            "AWS_AUTH_SCHEME_PREFERENCE": "sigv4a",
            "AWS_ACCOUNT_ID_ENDPOINT_MODE": "theirs",
            "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES": "theirs",
            "AWS_CA_BUNDLE": "/no/ca.pem",
            "AWS_ROLE_ARN": "theirs",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token",
        },
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_neither_a_proxy_nor_the_users_aws_settings_matter_here_or_in_a_child(
    server: S3Settings, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert_reached(server)


# ~/.aws/config of a laptop made for another S3.
CONFIG = """[default]
region = us-gov-west-1
services = theirs
endpoint_url = http://127.0.0.1:9
ignore_configured_endpoint_urls = true
use_fips_endpoint = true
max_attempts = theirs
retry_mode = theirs
request_checksum_calculation = theirs
response_checksum_validation = theirs
defaults_mode = theirs
ca_bundle = /no/ca.pem
credential_process = false
sigv4a_signing_region_set = *
s3 =
    addressing_style = virtual
    payload_signing_enabled = true
    use_accelerate_endpoint = true
    use_dualstack_endpoint = true
[services theirs]
s3 =
    endpoint_url = http://127.0.0.1:9
"""


@pytest.mark.parametrize("config", [CONFIG, "not = an ini [\n"], ids=["another S3", "broken"])
def test_no_config_in_the_users_home_matters_here_or_in_a_child(
    server: S3Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(config)
    (tmp_path / ".aws" / "credentials").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_reached(server)


def assert_reached(server: S3Settings) -> None:
    """This process and a child, which has the server's environment, use the server."""
    before = dict(os.environ)
    Store(server).write("s3://lung/kept", b"films")
    assert dict(os.environ) == before
    read = "from jobs.storage.s3 import Store; print(Store().read('s3://lung/kept'))"
    command = [sys.executable, "-c", read]
    child = subprocess.run(
        command, cwd=ROOT, env=server.environment(), capture_output=True, text=True
    )
    assert (child.stdout, child.returncode) == ("b'films'\n", 0), child.stderr


def test_a_server_is_added_to_the_hosts_without_a_proxy(
    server: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "hospital.example")
    environment = server.environment()
    assert environment["no_proxy"] == environment["NO_PROXY"] == "hospital.example,127.0.0.1"


def test_the_secret_key_is_not_printed_with_the_settings(server: S3Settings) -> None:
    assert server.access_key in repr(server)
    assert server.secret_key not in repr(server)


def test_nothing_is_left_running_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), embedded_s3(tmp_path):
        assert servers_of(tmp_path)
        raise ZeroDivisionError
    assert servers_of(tmp_path) == []


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        embedded_s3(tmp_path),
        pytest.raises(ServiceUnavailableError, match="another S3 server uses"),
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


def test_a_folder_of_an_earlier_version_becomes_the_owners_alone_and_no_socket_lies_open(
    tmp_path: Path,
) -> None:
    before = sockets_in_tmp()
    (tmp_path / "data").mkdir(mode=0o755)
    for path in (tmp_path / "weed.log", tmp_path / "data" / "lung_9.vif"):
        path.touch(0o644)
    with embedded_s3(tmp_path) as settings:
        Store(settings).write("s3://lung/film", b"film" * 10_000)
        for folder in (tmp_path, tmp_path / "data"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in (tmp_path / "weed.log", tmp_path / "data" / "lung_9.vif"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sockets_in_tmp() == before
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize(
    ("program", "victims"),
    [([], 4), (["--", "sh", "-c", "echo ready; exec sleep 60"], 1)],
    ids=["alone", "around a command, of one service"],
)
def test_a_server_that_dies_ends_its_command_with_69_and_the_last_lines_of_its_log(
    tmp_path: Path, program: list[str], victims: int
) -> None:
    command = [sys.executable, "-m", "jobs", "s3", "--folder", str(tmp_path), *program]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = servers_of(tmp_path)
        assert len(pids) == 4
        for pid in pids[:victims]:
            os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 69, errors
    last = errors.splitlines()[-1]
    assert "ServiceUnavailableError: the embedded S3 server has ended" in last
    log = tmp_path / "weed.log"
    quoted = last.partition(f"{log}: ")[2].split(" | ")
    written = [" ".join(line.split()) for line in log.read_text().splitlines()]
    assert len(quoted) == 3 and set(quoted) <= {line[:160] for line in written}


def test_a_full_disk_is_one_line_and_69(tmp_path: Path) -> None:
    mounted = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mounted += ['mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(tmp_path)]
    if subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("a small disk: this machine lets nobody mount one")
    folder = tmp_path / "s3"
    command = [*mounted, sys.executable, "-m", "jobs", "s3", "--folder", str(folder)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 69
    (line,) = process.stderr.splitlines()
    assert f"no space on the disk of {folder}: " in line and " MB of 2.1 MB are free" in line


def test_keys_may_be_given_and_then_the_folders_own_do_not_count(tmp_path: Path) -> None:
    with embedded_s3(tmp_path, keys=("given", "given-secret")) as first:
        Store(first).write("s3://lung/kept", b"films")
    assert (first.access_key, first.secret_key) == ("given", "given-secret")
    with embedded_s3(tmp_path) as second:
        assert Store(second).read("s3://lung/kept") == b"films"
        with pytest.raises(AccessError):
            Store(dataclasses.replace(second, access_key="given")).read("s3://lung/kept")


def test_a_large_object_is_read_by_the_next_server(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with embedded_s3(tmp_path) as first:
        Store(first).write("s3://lung/film", data)
    with embedded_s3(tmp_path) as second:
        assert Store(second).read("s3://lung/film") == data
