"""Fixtures: a real S3 server for the session, and real films where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobs.storage.s3 import Store
    from tests.support.fault_proxy import FaultProxy

# The networks of the tests are so small that threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
FORBID_SKIPS = "LUNG_FORBID_SKIPS"
PRINT_SETTINGS = """
import json, os, sys
names = ("AWS_", "LUNG_DOCKER_NETWORK")
print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(names)}), flush=True)
sys.stdin.read()
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where skips are forbidden, a test that needs an engine or Airflow fails instead."""
    report = yield
    needs_much = any(item.get_closest_marker(name) for name in ("engine", "airflow"))
    if report.skipped and needs_much and os.environ.get(FORBID_SKIPS):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The AWS variables of a server that lives as long as the session, and those for no proxy.

    Until the session ends this process has none of the AWS variables of whoever runs the tests.
    """
    from jobs.storage.local_server import embedded_s3

    with (
        embedded_s3(tmp_path_factory.mktemp("s3")) as settings,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in os.environ.keys() - settings.environment().keys():
            patch.delenv(name)
        yield settings.variables() | settings.no_proxy()


@pytest.fixture(scope="session")
def container_s3() -> Iterator[dict[str, str]]:
    """The AWS variables of a server in a container, and the network that leads to it."""
    with subprocess.Popen(
        [ROOT / "docker" / "with-s3.sh", sys.executable, "-c", PRINT_SETTINGS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        yield json.loads(server.stdout.readline())
        server.stdin.close()


@pytest.fixture
def store(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Store:
    from jobs.storage.s3 import Store

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return Store()


@pytest.fixture(scope="session")
def faulty_s3(s3: dict[str, str]) -> Iterator[tuple[FaultProxy, Store]]:
    from jobs.storage.s3 import Store
    from jobs.storage.s3_client import S3Settings
    from tests.support.fault_proxy import fault_proxy

    with fault_proxy(s3["AWS_ENDPOINT_URL"]) as proxy:
        settings = S3Settings(proxy.url, s3["AWS_ACCESS_KEY_ID"], s3["AWS_SECRET_ACCESS_KEY"])
        yield proxy, Store(settings)


@pytest.fixture
def proxy(faulty_s3: tuple[FaultProxy, Store]) -> Iterator[FaultProxy]:
    """The proxy in front of the session's server, without faults yet."""
    proxy, _ = faulty_s3
    yield proxy
    proxy.faults.clear()
    proxy.reads.clear()


@pytest.fixture
def behind(faulty_s3: tuple[FaultProxy, Store], proxy: FaultProxy) -> Store:
    """A store that reaches the session's server through the proxy."""
    return faulty_s3[1]


@pytest.fixture
def out() -> str:
    """A prefix that no other test uses."""
    return f"s3://lung/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real films, which lies beside the project on some machines."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real films: there is no ../shared/data on this machine")
    return folder
