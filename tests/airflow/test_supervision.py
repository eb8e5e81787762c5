"""The check of the processes above a task's process, in processes forked as Airflow forks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.airflow_tasks import ROOT
from tests.support.operators import wait_until

pytestmark = pytest.mark.airflow

# The scheduler forks the supervisor, which forks the task's process; that one writes the reason.
CHAIN = """
import os, socket, sys, time
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder
from lung import supervision
supervision.HEARTBEAT_SECONDS = 0.2
here = sys.argv[1]
def write(name, text):
    open(f"{here}/{name}.partial", "w").write(text)
    os.rename(f"{here}/{name}.partial", f"{here}/{name}")
for name in ("scheduler", "supervisor"):
    write(name, str(os.getpid()))
    if os.fork():
        time.sleep(60)
        os._exit(0)
if sys.argv[2] == "supervised":
    task_runner.SUPERVISOR_COMMS = CommsDecoder(socket=socket.socketpair()[0])
reasons = []
with supervision.supervised(lambda: write("heartbeat", ""), reasons.append):
    write("task", str(os.getpid()))
    until = time.monotonic() + 10
    while not reasons and time.monotonic() < until:
        time.sleep(0.05)
write("reason", " ".join(reasons))
os._exit(0)
"""


class Chain:
    """The three processes; each writes its pid to `folder`."""

    def __init__(self, folder: Path, mode: str) -> None:
        self._folder = folder
        self.first = subprocess.Popen(
            [sys.executable, "-c", CHAIN, str(folder), mode],
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'dags'}"},
        )
        wait_until((folder / "heartbeat").exists, seconds=60)

    def pid(self, name: str) -> int:
        return int((self._folder / name).read_text())

    def reason(self) -> str:
        wait_until((self._folder / "reason").exists, seconds=20)
        return (self._folder / "reason").read_text()

    def close(self) -> None:
        for name in ("scheduler", "supervisor", "task"):
            with suppress(ProcessLookupError):
                os.kill(self.pid(name), signal.SIGKILL)
        self.first.wait()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(tmp_path, "supervised")
    yield chain
    chain.close()


@pytest.mark.parametrize(
    ("killed", "named"), [("supervisor", "supervisor"), ("scheduler", "scheduler or worker")]
)
def test_a_task_whose_supervisor_or_scheduler_is_killed_ends_its_job(
    supervised: Chain, killed: str, named: str
) -> None:
    pid = supervised.pid(killed)
    os.kill(pid, signal.SIGKILL)
    assert supervised.reason() == (
        f"The {named} of this task (process {pid}) is gone, and so its job was ended"
    )


def test_a_task_without_a_supervisor_ignores_the_processes_above_it(tmp_path: Path) -> None:
    chain = Chain(tmp_path, "unsupervised")
    try:
        os.kill(chain.pid("supervisor"), signal.SIGKILL)
        os.kill(chain.pid("scheduler"), signal.SIGKILL)
        assert chain.reason() == ""
    finally:
        chain.close()


def test_a_heartbeat_that_fails_stops_the_job_once_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    from lung import supervision

    monkeypatch.setattr(supervision, "HEARTBEAT_SECONDS", 0.01)
    reasons: list[str] = []
    stopped = threading.Event()

    def fail() -> None:
        raise AirflowException("out of reach")

    def stop(reason: str) -> None:
        reasons.append(reason)
        stopped.set()

    with supervision.supervised(fail, stop):
        assert stopped.wait(10)
        time.sleep(0.1)
    assert reasons == ["out of reach"]
    assert "supervision" not in {thread.name for thread in threading.enumerate()}
