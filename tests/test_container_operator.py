"""The operator on a real engine; every test counts the containers that it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.airflow_tasks import (
    ROOT,
    RUN_ID,
    SUPERVISOR_SECONDS,
    command,
    connection_of,
    events,
    execute,
    killed_when_logged,
    logged,
    when_logged,
)

pytestmark = [pytest.mark.engine, pytest.mark.airflow]

LABELS = {"lung.dag": "lung_segmentation", "lung.run": RUN_ID, "lung.task": "train"}
PRINT_SETTINGS = """
import json, os, sys
names = ("AWS_", "LUNG_DOCKER_NETWORK")
print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(names)}), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    """An S3 server in a container: its keys, its address and the network that leads to it."""
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
def engine() -> Iterator[Any]:
    import docker

    client = docker.from_env()
    yield client
    client.close()


def containers(engine: Any, **labels: str) -> list[Any]:
    wanted = [f"{name}={value}" for name, value in (LABELS | labels).items()]
    found: list[Any] = engine.containers.list(all=True, filters={"label": wanted})
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(engine: Any) -> Iterator[None]:
    assert containers(engine) == []
    yield
    assert containers(engine) == []


@pytest.fixture
def make(settings: dict[str, str], out: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Builds an operator that runs Python code as its job."""
    from lung.container_operator import ContainerOperator

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(settings))
    made = []

    def build(code: str, **options: Any) -> Any:
        described = {
            "task_id": "train",
            "image": "lung-jobs:local",
            "network_mode": settings["LUNG_DOCKER_NETWORK"],
            "mem_limit": "1g",
            "shm_size": "64m",
            "environment": {"RESULT_URI": f"{out}/train--1-1.json"},
            "command": command(code),
        }
        made.append(ContainerOperator(**(described | options)))
        return made[-1]

    yield build
    for operator in made:
        if operator.hook.client_created:
            operator.hook.api_client.close()


def test_a_job_has_its_credentials_and_the_fewest_rights(
    make: Any, settings: dict[str, str]
) -> None:
    code = """
def refused(path):
    try:
        open(path, "w")
    except OSError:
        return True
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
open("/tmp/scratch", "w").write("x")
end(
    uid=os.getuid(), capabilities=int(status["CapEff"], 16), bounding=int(status["CapBnd"], 16),
    no_new_privileges=int(status["NoNewPrivs"]), read_only=refused("/app/x"), parent=os.getppid(),
    shm=os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    aws={name: value for name, value in os.environ.items() if name.startswith("AWS_")},
)
"""
    operator = make(code)
    result = execute(operator)
    aws = result.pop("aws")
    assert aws == {name: settings[name] for name in aws}
    assert len(aws) == 4
    assert result.pop("uid") != 0
    assert result == {
        "capabilities": 0,
        "bounding": 0,
        "no_new_privileges": 1,
        "read_only": True,
        "parent": 1,  # an init, which reaps what the job leaves
        "shm": 64 * 2**20,
    }
    for field in operator.template_fields:
        assert settings["AWS_SECRET_ACCESS_KEY"] not in str(getattr(operator, field))


def test_every_line_is_logged_as_soon_as_it_is_said_down_to_the_last(
    make: Any, engine: Any
) -> None:
    # The job goes on only because its first line was seen while it ran.
    code = """
print("first")
while not os.path.exists("/tmp/go"):
    time.sleep(0.05)
end()
print("é" * 20000)
print("last", end="")
"""

    def go() -> None:
        containers(engine)[0].exec_run(["touch", "/tmp/go"])

    with when_logged("first", go) as entries:
        execute(make(code))
    lines = events(entries)
    assert lines[lines.index("first") + 1 : lines.index("last") + 1] == ["é" * 20000, "last"]


@pytest.mark.parametrize(("code", "is_retried"), [(2, False), (65, False), (69, True), (75, True)])
def test_a_job_that_fails_is_an_error_with_its_last_line(
    make: Any, code: int, is_retried: bool
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(
        AirflowException, match=rf"code {code}: .*It said: because of this$"
    ) as told:
        execute(make(f"print('because of this', file=sys.stderr); sys.exit({code})"))
    assert isinstance(told.value, AirflowFailException) is not is_retried


def test_a_job_that_writes_no_result_fails(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises(AirflowException, match=r"cannot be read from s3://.*NoSuchKey"):
        execute(make("print('done')"))


def test_a_job_that_is_killed_for_memory_says_so_with_the_limit_and_the_remedy(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises(AirflowException, match=r"killed for memory.*limit is 64m.*LUNG_JOBS_MEMO"):
        execute(make("x = bytearray(200 * 2**20); x[::4096] = x[::4096]", mem_limit="64m"))


def test_a_time_out_stops_the_job_gently_and_is_the_error_shown(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowTaskTimeout

    code = """
def save(*_):
    end(saved=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
time.sleep(60)
"""
    operator = make(code, execution_timeout=timedelta(seconds=6))
    with pytest.raises(AirflowTaskTimeout):
        execute(operator)
    from lung.contract import read_result

    assert read_result(operator.environment["RESULT_URI"]) == {"saved": True}


def test_a_kill_ends_a_stubborn_job_before_the_supervisor_loses_patience(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    operator = make(code)
    with (
        killed_when_logged("ready", operator) as seconds,
        pytest.raises(AirflowException, match="stopped from outside"),
    ):
        execute(operator)
    assert seconds[0] < SUPERVISOR_SECONDS


def test_a_job_does_not_start_after_a_kill(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = make("print('started'); time.sleep(60)")
    operator.on_kill()
    with logged() as entries, pytest.raises(AirflowException, match="stopped from outside"):
        execute(operator)
    assert "started" not in events(entries)


def test_what_an_earlier_try_left_is_removed_and_what_is_not_this_tasks_stays(
    make: Any, engine: Any, settings: dict[str, str]
) -> None:
    here = {"lung.network": settings["LUNG_DOCKER_NETWORK"], "lung.map_index": "-1"}
    left, of_other_task, of_other_airflow = (
        engine.containers.run(
            "lung-jobs:local", ["sleep", "60"], labels=LABELS | here | other, detach=True, init=True
        )
        for other in ({"lung.try": "1"}, {"lung.task": "predict"}, {"lung.network": "theirs"})
    )
    try:
        assert execute(make("end(done=True)"), try_number=2) == {"done": True}
        found = {container.id for container in engine.containers.list(all=True)}
        assert left.id not in found
        assert {of_other_task.id, of_other_airflow.id} <= found
    finally:
        of_other_task.remove(force=True)
        of_other_airflow.remove(force=True)


def test_an_older_try_that_ends_late_does_not_remove_the_container_of_the_next(
    make: Any, engine: Any
) -> None:
    next_try = engine.containers.run(
        "lung-jobs:local",
        ["sleep", "60"],
        labels=LABELS | {"lung.try": "2"},
        detach=True,
        init=True,
    )
    try:
        operator = make("end()")
        execute(operator, try_number=1)
        operator.on_kill()
        next_try.reload()
        assert next_try.status == "running"
    finally:
        next_try.remove(force=True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"image": "lung-jobs:never-built"}, "did not run lung-jobs:never-built: "),
        ({"network_mode": "no-such-network"}, "network no-such-network not found"),
        ({"command": ["no-such-program"]}, "no-such-program"),
        ({"docker_url": "tcp://127.0.0.1:1"}, "Failed to establish connection to any given Docker"),
    ],
)
def test_what_the_engine_refuses_is_the_error_shown_and_is_tried_again(
    make: Any, options: dict[str, Any], error: str
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    started = time.monotonic()
    with pytest.raises(AirflowException, match=error) as told:
        execute(make("end()", **options))
    assert not isinstance(told.value, AirflowFailException)
    assert time.monotonic() - started < 60


def test_a_container_shows_its_credentials_nowhere_else_and_takes_its_scratch_volume_along(
    make: Any, engine: Any, settings: dict[str, str]
) -> None:
    seen: list[Any] = []

    def look() -> None:
        container = containers(engine)[0]
        seen.append(container.attrs)
        container.kill()

    from airflow.sdk.exceptions import AirflowException

    with when_logged("ready", look), pytest.raises(AirflowException, match="137"):
        execute(make("print('ready'); time.sleep(60)"))
    config = seen[0]["Config"]
    assert f"AWS_SECRET_ACCESS_KEY={settings['AWS_SECRET_ACCESS_KEY']}" in config.pop("Env")
    assert settings["AWS_SECRET_ACCESS_KEY"] not in json.dumps(seen[0])
    (scratch,) = seen[0]["Mounts"]
    assert scratch["Destination"] == "/tmp"
    assert scratch["Name"] not in {volume.name for volume in engine.volumes.list()}
