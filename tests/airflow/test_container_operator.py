"""What holds for containers only, on a real engine; `test_endings.py` covers both backends."""

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
    backend = ContainerBackend(container_s3, out)
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(container_s3))
    yield backend
    try:
        assert backend.left() == []
    finally:
        backend.close()


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
        "parent": 1,  # an init, which reaps orphaned processes
        "shm": 64 * 2**20,
    }
    for field in operator.template_fields:
        assert backend.s3["AWS_SECRET_ACCESS_KEY"] not in str(getattr(operator, field))


def test_every_line_is_logged_when_it_is_printed_and_the_last_one_too(
    backend: ContainerBackend,
) -> None:
    # The job goes on only if its first line was logged while it ran.
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


def test_the_error_of_a_job_killed_for_memory_has_the_limit_and_the_remedy(
    backend: ContainerBackend,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises(AirflowException, match=r"killed for memory.*limit is 64m.*LUNG_JOBS_MEMO"):
        execute(backend.build("x = bytearray(200 * 2**20); x[::4096] = x[::4096]", mem_limit="64m"))


def test_the_container_of_another_airflow_on_the_engine_stays(backend: ContainerBackend) -> None:
    labels = {"lung.dag": "lung_segmentation", "lung.task": "train", "lung.network": "other"}
    other = backend.start_container(labels)
    execute(backend.build("end()"))
    other.reload()
    assert other.status == "running"


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
    with pytest.raises(AirflowException, match=error) as raised:
        execute(backend.build("end()", **options))
    assert not isinstance(raised.value, AirflowFailException)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("share", ["any", "all"])
def test_on_an_engine_without_gpus_their_share_is_the_cpu(
    backend: ContainerBackend, share: str
) -> None:
    assert execute(backend.build("end(done=True)", gpus=share)) == {"done": True}


def test_a_gpu_that_the_engine_does_not_have_is_an_error_that_is_never_retried(
    backend: ContainerBackend,
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"needs 1 GPUs and .* offers 0: lower GPUs"):
        execute(backend.build("end()", gpus=1))


@pytest.mark.parametrize(("limit", "cores"), [(1, 1), (1.5, 2)])
def test_a_job_starts_as_many_threads_as_its_container_may_use_cores(
    backend: ContainerBackend, limit: float, cores: int
) -> None:
    code = """
import jobs.cli
jobs.cli.limit_threads()
import torch
from jobs.runtime import parallel
end(
    torch=torch.get_num_threads(), decode=parallel.CORES,
    affinity=len(os.sched_getaffinity(0)), threads=os.environ.get("OMP_NUM_THREADS"),
)
"""
    result = execute(backend.build(code, cpu_limit=limit))
    if result["affinity"] < 2:
        pytest.skip("one core is as few as the container's limit")
    expected = min(cores, result["affinity"])
    assert (result["torch"], result["decode"]) == (expected, expected)


def test_a_second_try_killed_at_the_same_memory_limit_is_the_last_one(
    backend: ContainerBackend,
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    code = "x = bytearray(200 * 2**20); x[::4096] = x[::4096]"

    def killed(try_number: int, limit: str) -> Exception:
        uri = backend.result_uri.replace("--1-1.json", f"--1-{try_number}.json")
        operator = backend.build(code, mem_limit=limit, environment={"RESULT_URI": uri})
        with pytest.raises(AirflowException, match="killed for memory") as raised:
            execute(operator, try_number)
        return raised.value

    assert not isinstance(killed(1, "64m"), AirflowFailException)
    assert isinstance(killed(2, "64m"), AirflowFailException)
    assert not isinstance(killed(3, "96m"), AirflowFailException)


def test_the_error_of_a_container_killed_through_the_engine_does_not_blame_memory(
    backend: ContainerBackend,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = backend.build("print('ready'); time.sleep(60)")
    with (
        when_logged("ready", lambda: backend.left()[0].kill()),
        pytest.raises(AirflowException, match=r"137: its container was stopped, by `docker stop`"),
    ):
        execute(operator)


def test_only_a_containers_environment_has_the_credentials_and_its_volume_is_removed_with_it(
    backend: ContainerBackend,
) -> None:
    attributes: list[Any] = []

    def inspect_and_kill() -> None:
        attributes.append(backend.left()[0].attrs)
        backend.left()[0].kill()

    from airflow.sdk.exceptions import AirflowException

    with when_logged("ready", inspect_and_kill), pytest.raises(AirflowException, match="137"):
        execute(backend.build("print('ready'); time.sleep(60)"))
    config = attributes[0]["Config"]
    assert f"AWS_SECRET_ACCESS_KEY={backend.s3['AWS_SECRET_ACCESS_KEY']}" in config.pop("Env")
    assert backend.s3["AWS_SECRET_ACCESS_KEY"] not in json.dumps(attributes[0])
    (scratch,) = attributes[0]["Mounts"]
    assert scratch["Destination"] == "/tmp"
    assert scratch["Name"] not in {volume.name for volume in backend.engine.volumes.list()}
