"""A job on an engine that is stopped, killed or hangs: a second engine that the tests start."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.airflow_tasks import ROOT, command, connection_of, execute, when_logged
from tests.support.operators import wait_until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.airflow,
    pytest.mark.slow,
    # docker-py does not close its socket where an engine refuses the connection.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

IMAGE = "lung-lifeline"
# The part of the jobs' image that a lifeline needs.
DOCKERFILE = "FROM lung-base:bookworm\nCOPY jobs /app/jobs\nENV PYTHONPATH=/app\n"
FILES = (
    "jobs/__init__.py",
    "jobs/errors.py",
    "jobs/runtime/__init__.py",
    "jobs/runtime/lifeline.py",
)
JOB = """
from jobs.runtime import lifeline
def save(*_):
    print("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
lifeline.hold()
print("ready")
time.sleep(200)
"""


class Engine:
    """A Docker engine in a new network namespace: two in one would compete for the bridge."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/socket"
        self.process: subprocess.Popen[bytes]
        self.client: Any = None

    def start(self) -> None:
        import docker

        # A killed engine leaves these, and a new one refuses to start beside them.
        for pid_file in self._folder.rglob("*.pid"):
            pid_file.unlink()
        options = {
            "data-root": self._folder / "data",
            "exec-root": self._folder / "exec",
            "pidfile": self._folder / "engine.pid",
            "host": self.url,
            "bridge": "none",
            "iptables": "false",
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", "dockerd", *flags],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            assert self.process.poll() is None, (self._folder / "log").read_text()[-2000:]
            version = ["docker", "-H", self.url, "version"]
            return subprocess.run(version, capture_output=True).returncode == 0

        wait_until(answers, seconds=60)
        if self.client:
            self.client.close()
        self.client = docker.DockerClient(base_url=self.url)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> None:
        self.process.wait(30)

    def build_image(self) -> None:
        build_context = io.BytesIO()
        with tarfile.open(fileobj=build_context, mode="w") as archive:
            for name in FILES:
                archive.add(ROOT / name, name)
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(DOCKERFILE)
            archive.addfile(entry, io.BytesIO(DOCKERFILE.encode()))
        with subprocess.Popen(
            ["docker", "save", "lung-base:bookworm"], stdout=subprocess.PIPE
        ) as saved:
            assert saved.stdout
            self.client.images.load(saved.stdout)
        build_context.seek(0)
        self.client.images.build(fileobj=build_context, custom_context=True, tag=IMAGE, rm=True)

    def containers(self) -> list[Any]:
        containers: list[Any] = self.client.containers.list(all=True)
        return containers

    def close(self) -> None:
        if self.client:
            self.client.close()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self.wait()
        # The mounts that a killed engine left would prevent the folder's removal.
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(str(self._folder)):
                subprocess.run(["umount", mount], check=True)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if os.getuid() != 0:
        pytest.skip("only root can start a second engine")
    # Not below pytest's folder, whose path is too long for a socket's name.
    with tempfile.TemporaryDirectory(prefix="lung-engine-") as folder:
        engine = Engine(Path(folder))
        engine.start()
        try:
            engine.build_image()
            yield engine
        finally:
            engine.close()


@pytest.fixture
def run(
    engine: Engine, s3: dict[str, str], out: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], object]], tuple[str, int]]]:
    """Run a job and call a function once it runs; returns the task's error and the job's pid."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from lung.container_operator import ContainerOperator

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    operators = []

    def execute_and(act: Callable[[], object]) -> tuple[str, int]:
        operator = ContainerOperator(
            task_id="train",
            image=IMAGE,
            docker_url=engine.url,
            network_mode="none",
            mem_limit="256m",
            timeout=3,
            environment={"RESULT_URI": f"{out}/train--1-1.json"},
            command=["python3", *command(JOB)[1:]],
        )
        operators.append(operator)
        pids: list[int] = []

        def inspect_and_act() -> None:
            pids.append(engine.containers()[0].attrs["State"]["Pid"])
            act()

        with when_logged("ready", inspect_and_act), pytest.raises(AirflowException) as raised:
            execute(operator)
        assert not isinstance(raised.value, AirflowFailException)
        return str(raised.value), pids[0]

    yield execute_and
    for operator in operators:
        operator.hook.api_client.close()


def test_a_job_on_an_engine_that_stops_saves_its_state(engine: Engine, run: Any) -> None:
    error, _ = run(lambda: engine.send(signal.SIGTERM))
    assert "75: its container was stopped, by `docker stop` or because the engine stopped" in error
    assert error.endswith("Its last line: saved")
    engine.wait()
    engine.start()
    assert engine.containers() == []


def test_a_job_on_an_engine_that_is_killed_ends_itself_within_a_minute(
    engine: Engine, run: Any
) -> None:
    error, pid = run(lambda: engine.send(signal.SIGKILL))
    assert f"The engine at {engine.url} went away: it hung up while the job ran" in error
    engine.wait()
    # The job's input is still open: it ends after 40 s of silence.
    assert psutil.pid_exists(pid)
    wait_until(lambda: not psutil.pid_exists(pid), seconds=60)
    engine.start()
    assert engine.containers() == []


def test_an_engine_that_is_killed_and_restarted_leaves_neither_job_nor_container(
    engine: Engine, run: Any
) -> None:
    error, pid = run(lambda: engine.send(signal.SIGKILL))
    assert "went away: it hung up while the job ran" in error
    engine.wait()
    engine.start()
    wait_until(lambda: not engine.containers() and not psutil.pid_exists(pid), seconds=60)


def test_a_job_on_an_engine_that_hangs_ends_itself_and_the_error_names_the_time_out(
    engine: Engine, run: Any
) -> None:
    error, pid = run(lambda: engine.send(signal.SIGSTOP))
    assert f"The engine at {engine.url} went away: " in error
    assert "timed out" in error.lower()
    wait_until(lambda: not psutil.pid_exists(pid), seconds=60)
    engine.send(signal.SIGCONT)
    wait_until(lambda: not engine.containers(), seconds=30)
