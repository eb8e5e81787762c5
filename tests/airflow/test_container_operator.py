"""What only containers have, on a real engine; `test_endings.py` holds what both backends do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.airflow_tasks import connection_of, events, execute, when_logged
from tests.support.operators import ContainerBackend

pytestmark = [pytest.mark.engine, pytest.mark.airflow]


@pytest.fixture
def backend(
    container_s3: dict[str, str], out: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ContainerBackend]:
    made = ContainerBackend(container_s3, out)
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(container_s3))
    yield made
    try:
        assert made.left() == []
    finally:
        made.close()


def test_a_job_has_its_credentials_and_the_fewest_rights(backend: ContainerBackend) -> None:
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
    operator = backend.build(code)
    result = execute(operator)
    aws = result.pop("aws")
    assert aws == {name: backend.s3[name] for name in aws}
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
        assert backend.s3["AWS_SECRET_ACCESS_KEY"] not in str(getattr(operator, field))


def test_every_line_is_logged_as_soon_as_it_is_said_down_to_the_last(
    backend: ContainerBackend,
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
        backend.left()[0].exec_run(["touch", "/tmp/go"])

    with when_logged("first", go) as entries:
        execute(backend.build(code))
    lines = events(entries)
    assert lines[lines.index("first") + 1 : lines.index("last") + 1] == ["é" * 20000, "last"]


def test_a_job_that_is_killed_for_memory_says_so_with_the_limit_and_the_remedy(
    backend: ContainerBackend,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises(AirflowException, match=r"killed for memory.*limit is 64m.*LUNG_JOBS_MEMO"):
        execute(backend.build("x = bytearray(200 * 2**20); x[::4096] = x[::4096]", mem_limit="64m"))


def test_the_container_of_another_airflow_on_the_engine_stays(backend: ContainerBackend) -> None:
    labels = {"lung.dag": "lung_segmentation", "lung.task": "train", "lung.network": "theirs"}
    theirs = backend.start_container(labels)
    execute(backend.build("end()"))
    theirs.reload()
    assert theirs.status == "running"


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
    backend: ContainerBackend, options: dict[str, Any], error: str
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    started = time.monotonic()
    with pytest.raises(AirflowException, match=error) as told:
        execute(backend.build("end()", **options))
    assert not isinstance(told.value, AirflowFailException)
    assert time.monotonic() - started < 60


def test_gpus_are_asked_of_the_engine(
    backend: ContainerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = backend.build("end()", gpus="2")
    asked: list[Any] = []

    def refuse(**options: Any) -> Any:
        asked.extend(options["device_requests"])
        raise AirflowException("enough")

    monkeypatch.setattr(operator.cli, "create_host_config", refuse)
    with pytest.raises(AirflowException, match="enough"):
        execute(operator)
    (request,) = asked
    assert (request["Count"], request["Capabilities"]) == (2, [["gpu"]])


def test_a_job_waits_for_the_gpus_until_no_container_has_them(
    backend: ContainerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException

    from lung import container_operator

    theirs = {"lung.gpus": "1", "lung.task": "train", "lung.run": "weekly"}
    backend.start_container(theirs, seconds=4)
    operator = backend.build("end()", gpus=1)
    started: list[bool] = []

    def create(**_: Any) -> Any:
        started.append(bool(backend.engine.containers.list(filters={"label": "lung.gpus"})))
        raise AirflowException("enough")

    monkeypatch.setattr(operator.cli, "create_container", create)
    with pytest.raises(AirflowException, match="enough"):
        execute(operator)
    assert started == [False]

    backend.start_container(theirs)
    monkeypatch.setattr(container_operator, "GPU_WAIT_SECONDS", 0.5)
    with pytest.raises(AirflowException, match="taken by train of the run weekly: give the pool"):
        execute(backend.build("end()", gpus=1))


def test_a_container_stopped_through_the_engine_is_not_taken_for_one_out_of_memory(
    backend: ContainerBackend,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = backend.build("print('ready'); time.sleep(60)")
    with (
        when_logged("ready", lambda: backend.left()[0].kill()),
        pytest.raises(AirflowException, match=r"137: its container was stopped, by `docker stop`"),
    ):
        execute(operator)


def test_a_container_shows_its_credentials_nowhere_else_and_takes_its_scratch_volume_along(
    backend: ContainerBackend,
) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(backend.left()[0].attrs)
        backend.left()[0].kill()

    from airflow.sdk.exceptions import AirflowException

    with when_logged("ready", look), pytest.raises(AirflowException, match="137"):
        execute(backend.build("print('ready'); time.sleep(60)"))
    config = seen[0]["Config"]
    assert f"AWS_SECRET_ACCESS_KEY={backend.s3['AWS_SECRET_ACCESS_KEY']}" in config.pop("Env")
    assert backend.s3["AWS_SECRET_ACCESS_KEY"] not in json.dumps(seen[0])
    (scratch,) = seen[0]["Mounts"]
    assert scratch["Destination"] == "/tmp"
    assert scratch["Name"] not in {volume.name for volume in backend.engine.volumes.list()}
