"""A job on an engine that is stopped, killed or hangs: a second engine, of this test's own."""

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
# As much of the jobs' image as holds a lifeline.
DOCKERFILE = "FROM lung-base:bookworm\nCOPY jobs /app/jobs\nENV PYTHONPATH=/app\n"
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
    """A Docker engine in a network namespace of its own, as one may take another's bridge away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/socket"
        self.process: subprocess.Popen[bytes]
        self.client: Any = None

    def start(self) -> None:
        import docker

        # A killed engine leaves these, and a new one takes them for a running one.
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
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--net", "dockerd"),
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            assert self.process.poll() is None, (self._folder / "log").read_text()[-2000:]
            asked = subprocess.run(["docker", "-H", self.url, "version"], capture_output=True)
            return asked.returncode == 0

        wait_until(answers, seconds=60)
        if self.client:
            self.client.close()
        self.client = docker.DockerClient(base_url=self.url)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> None:
        self.process.wait(30)

    def make_image(self) -> None:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name in ("jobs/__init__.py", "jobs/errors.py", "jobs/runtime/lifeline.py"):
                archive.add(ROOT / name, name)
            about = tarfile.TarInfo("Dockerfile")
            about.size = len(DOCKERFILE)
            archive.addfile(about, io.BytesIO(DOCKERFILE.encode()))
        with subprocess.Popen(
            ["docker", "save", "lung-base:bookworm"], stdout=subprocess.PIPE
        ) as saved:
            assert saved.stdout
            self.client.images.load(saved.stdout)
        content.seek(0)
        self.client.images.build(fileobj=content, custom_context=True, tag=IMAGE, rm=True)

    def containers(self) -> list[Any]:
        found: list[Any] = self.client.containers.list(all=True)
        return found

    def close(self) -> None:
        if self.client:
            self.client.close()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self.wait()
        # The mounts that a killed one left would keep the folder from being removed.
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(str(self._folder)):
                subprocess.run(["umount", mount], check=True)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if os.getuid() != 0:
        pytest.skip("a second engine is started by root only")
    # Not below pytest's folder, whose path is too long for a socket's.
    with tempfile.TemporaryDirectory(prefix="lung-engine-") as folder:
        made = Engine(Path(folder))
        made.start()
        try:
            made.make_image()
            yield made
        finally:
            made.close()


@pytest.fixture
def run(
    engine: Engine, s3: dict[str, str], out: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], object]], tuple[str, int]]]:
    """Run a job, do something to its engine once it runs; the error shown and the job's pid."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from lung.container_operator import ContainerOperator

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    made = []

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
        made.append(operator)
        pids: list[int] = []

        def look_and_act() -> None:
            pids.append(engine.containers()[0].attrs["State"]["Pid"])
            act()

        with when_logged("ready", look_and_act), pytest.raises(AirflowException) as told:
            execute(operator)
        assert not isinstance(told.value, AirflowFailException)
        return str(told.value), pids[0]

    yield execute_and
    for operator in made:
        operator.hook.api_client.close()


def test_a_job_on_an_engine_that_stops_saves_its_state_and_says_so(
    engine: Engine, run: Any
) -> None:
    error, _ = run(lambda: engine.send(signal.SIGTERM))
    assert "75: its container was stopped, by `docker stop` or because the engine stopped" in error
    assert error.endswith("It said: saved")
    engine.wait()
    engine.start()
    assert engine.containers() == []


def test_a_job_on_an_engine_that_is_killed_ends_itself_within_a_minute(
    engine: Engine, run: Any
) -> None:
    error, pid = run(lambda: engine.send(signal.SIGKILL))
    assert f"The engine at {engine.url} went away: it hung up while the job ran" in error
    engine.wait()
    # Nothing has told the job: its input is still open.
    assert psutil.pid_exists(pid)
    wait_until(lambda: not psutil.pid_exists(pid), seconds=60)
    engine.start()
    assert engine.containers() == []


def test_an_engine_that_is_killed_and_started_again_leaves_nothing(
    engine: Engine, run: Any
) -> None:
    error, pid = run(lambda: engine.send(signal.SIGKILL))
    assert "went away: it hung up while the job ran" in error
    engine.wait()
    engine.start()
    wait_until(lambda: not engine.containers() and not psutil.pid_exists(pid), seconds=60)


def test_a_job_on_an_engine_that_hangs_ends_itself_and_the_error_says_it(
    engine: Engine, run: Any
) -> None:
    error, pid = run(lambda: engine.send(signal.SIGSTOP))
    assert f"The engine at {engine.url} went away: " in error
    assert "timed out" in error.lower()
    wait_until(lambda: not psutil.pid_exists(pid), seconds=60)
    engine.send(signal.SIGCONT)
    wait_until(lambda: not engine.containers(), seconds=30)
