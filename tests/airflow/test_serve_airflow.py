"""Airflow served on this machine: ready, private, kept over a restart, ended in every way."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.serving import AIRFLOW_PYTHON, ROOT, SERVE, Served, served_airflow, start, stop

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(400)]

# `hold` starts a process in another session that ignores SIGTERM, as a careless task may.
DAG = """
import subprocess
from airflow.sdk import DAG, task

with DAG("short", schedule=None) as short:
    @task
    def say():
        return "said"
    say()

with DAG("long", schedule=None) as long:
    @task
    def hold():
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        subprocess.run(["python3", "-c", code, "MARK"], start_new_session=True)
    hold()
"""


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "two.py").write_text(DAG.replace("MARK", str(tmp_path)))
    return folder


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that have `folder` in them or in their environment."""
    commands = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            environment = (entry / "environ").read_bytes() if command else b""
        except OSError:
            continue
        if str(folder).encode() in command + b"\0" + environment:
            commands.append(command.replace(b"\0", b" ").decode(errors="replace")[:120])
    return commands


def gone(query: Callable[[], object], seconds: float) -> bool:
    """Whether `query()` became empty within `seconds`."""
    limit = time.monotonic() + seconds
    while (left := query()) and time.monotonic() < limit:
        time.sleep(0.2)
    return not left


def hold(served: Served, folder: Path) -> None:
    """Start the long DAG and wait until its process that ignores SIGTERM runs."""
    served.trigger("long")
    served.wait_until(
        lambda: any("SIG_IGN" in line for line in processes_of(folder)), {True}, seconds=60
    )


@pytest.mark.slow
def test_airflow_is_ready_and_private_its_data_survive_a_restart_and_no_process_does(
    tmp_path: Path, dags: Path
) -> None:
    home = tmp_path / "home"
    with served_airflow(dags=dags, home=home, environment={"LUNG_GPUS": "3"}) as served:
        assert served.token("wrong").status_code == 401
        assert served.token().status_code == 201
        run = served.trigger("short")
        assert served.wait_for_end("short", run, seconds=60) == "success"
        assert served.environment["LUNG_GPUS"] == "3"
        assert served.get("/pools/gpu")["slots"] == 3
        for secret in ("passwords.json", "secrets.json", "serving.json", "s3/credentials.json"):
            assert stat.S_IMODE((home / secret).stat().st_mode) == 0o600, secret
        password = served.password
        hold(served, tmp_path)
        served.process.send_signal(signal.SIGKILL)
        assert gone(lambda: processes_of(tmp_path), seconds=20), processes_of(tmp_path)

    with served_airflow(dags=dags, home=home, environment={"LUNG_GPUS": "0"}) as served:
        assert served.password == password
        assert served.get("/pools/gpu")["slots"] == 1
        assert served.get(f"/dags/short/dagRuns/{run}")["state"] == "success"
        assert "said" in served.log("short", run, "say")
        assert stop(served.process) < 20
        assert processes_of(tmp_path) == []
    assert not (home / "serving.json").exists()


@pytest.mark.slow
@pytest.mark.engine
def test_the_s3_container_and_its_network_are_removed_after_a_kill_of_airflow(
    tmp_path: Path, dags: Path
) -> None:
    with served_airflow(backend="docker", dags=dags, home=tmp_path / "home") as served:
        network = served.environment["LUNG_DOCKER_NETWORK"]

        def left() -> str:
            names = ["--filter", f"name={network}", "--format", "{{.Names}}"]
            containers = docker("ps", "--all", *names)
            return containers + docker("network", "ls", *names[:2], "--format", "{{.Name}}")

        assert left().split() == [network, network]
        served.process.send_signal(signal.SIGKILL)
        assert gone(left, seconds=20), left()
        assert gone(lambda: processes_of(tmp_path), seconds=20), processes_of(tmp_path)


def docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def refused(home: Path, *options: str) -> str:
    """The one line that `serve_airflow` prints where it does not start."""
    command = [str(AIRFLOW_PYTHON), "-m", SERVE, "--home", str(home), *options]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (69, ""), process
    assert process.stderr.count("\n") == 1, process
    return process.stderr


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in refused(tmp_path / "home", "--port", str(port))
    assert processes_of(tmp_path) == []


def test_a_home_that_another_airflow_serves_is_refused(tmp_path: Path, dags: Path) -> None:
    home = tmp_path / "home"
    first = start(home, dags=dags)
    try:
        assert gone(lambda: not (home / "lock").exists(), seconds=20)
        time.sleep(0.5)  # the file exists before it is locked
        assert f"another Airflow serves {home}" in refused(home, "--dags", str(dags))
    finally:
        stop(first)
    assert processes_of(tmp_path) == []
