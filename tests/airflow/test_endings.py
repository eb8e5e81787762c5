"""Every way in which a job can end, on both backends: the error, and that nothing is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_tasks import (
    SUPERVISOR_SECONDS,
    connection_of,
    events,
    execute,
    killed_when_logged,
    logged,
)
from tests.support.operators import Backend, ContainerBackend, ProcessBackend, wait_until

pytestmark = pytest.mark.airflow

# Writes its result on SIGTERM, as a job saves its state.
SAVES = """
def save(*_):
    end(saved=True)
    print("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
"""
# Ignores SIGTERM; the child leaves the session, as the ranks of a torch launcher do.
HOLD = "from jobs.runtime import lifeline; lifeline.hold(); print('ready'); time.sleep(60)"
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("ready")
time.sleep(60)
"""


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.engine), "process"])
def backend(
    request: pytest.FixtureRequest, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    backend: Backend
    if request.param == "docker":
        backend = ContainerBackend(request.getfixturevalue("container_s3"), out)
    else:
        backend = ProcessBackend(request.getfixturevalue("s3"), out, str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(backend.s3))
    yield backend
    try:
        assert backend.left() == []
    finally:
        backend.close()


def test_a_job_returns_the_result_that_it_wrote(backend: Backend) -> None:
    assert execute(backend.build("end(manifest='s3://lung/x/manifest.json')")) == {
        "manifest": "s3://lung/x/manifest.json"
    }


@pytest.mark.parametrize(("code", "is_retried"), [(2, False), (65, False), (69, True), (75, True)])
def test_a_job_that_fails_is_an_error_with_its_last_line(
    backend: Backend, code: int, is_retried: bool
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    log = "print('2026-11-23 10:00:00,000 ERROR JobError: because of this', file=sys.stderr)"
    with pytest.raises(
        AirflowException, match=rf"code {code}: .*Its last line: JobError: because of this$"
    ) as raised:
        execute(backend.build(f"{log}; sys.exit({code})"))
    assert isinstance(raised.value, AirflowFailException) is not is_retried


def test_the_lines_of_a_job_keep_their_level_and_start_with_their_message(
    backend: Backend,
) -> None:
    code = """
for level in ("INFO", "WARNING", "ERROR", "CRITICAL"):
    print("2026-11-23 10:00:00,000", level, "3 films", file=sys.stderr)
print("  of 48", file=sys.stderr)
print("3 films of a library", file=sys.stderr)
end()
"""
    operator = backend.build(code)
    with logged() as entries:
        execute(operator)
    lines = [(entry["log_level"], entry["event"]) for entry in entries]
    assert [line for line in lines if "3 films" in line[1] or "of 48" in line[1]] == [
        ("info", "3 films"),
        ("warning", "3 films"),
        ("error", "3 films"),
        ("critical", "3 films"),
        ("critical", "  of 48"),
        ("info", "3 films of a library"),
    ]


def test_a_job_without_a_result_fails_even_where_an_older_result_exists(backend: Backend) -> None:
    from airflow.sdk.exceptions import AirflowException

    execute(backend.build("end(old=True)"))
    with pytest.raises(AirflowException, match=r"cannot be read from s3://.*NoSuchKey"):
        execute(backend.build("print('done')"))


def test_a_killed_job_ends_with_its_children_and_the_error_names_the_signal(
    backend: Backend,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    code = """
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with pytest.raises(AirflowException, match=r"137: killed .SIGKILL., most often .* memory"):
        execute(backend.build(code))


def test_a_time_out_lets_the_job_save_its_state_logs_its_output_and_is_the_error(
    backend: Backend,
) -> None:
    from airflow.sdk.exceptions import AirflowTaskTimeout

    from lung.contract import read_result

    operator = backend.build(SAVES + "time.sleep(60)", execution_timeout=timedelta(seconds=6))
    with logged() as entries, pytest.raises(AirflowTaskTimeout):
        execute(operator)
    assert read_result(backend.result_uri) == {"saved": True}
    assert "saved" in events(entries)


def test_a_kill_ends_a_job_that_ignores_sigterm_before_the_supervisor_kills_its_task(
    backend: Backend,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = backend.build(STUBBORN)
    with (
        killed_when_logged("ready", operator) as seconds,
        pytest.raises(AirflowException, match="stopped from outside"),
    ):
        execute(operator)
    assert seconds[0] < SUPERVISOR_SECONDS


def test_a_job_does_not_start_after_a_kill(backend: Backend) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = backend.build(STUBBORN)
    operator.on_kill()
    started = time.monotonic()
    with logged() as entries, pytest.raises(AirflowException, match="stopped from outside"):
        execute(operator)
    assert time.monotonic() - started < 10
    assert "ready" not in events(entries)


def test_a_job_whose_task_is_killed_saves_its_state_and_ends(
    backend: Backend,
) -> None:
    from lung.contract import read_result

    code = f"{SAVES}\n{HOLD}"
    with backend.task_process(code) as task:
        assert backend.left()
        task.kill()
        wait_until(lambda: not backend.left(), seconds=20)
    assert read_result(backend.result_uri) == {"saved": True}


def test_what_an_earlier_try_left_running_is_ended_before_the_job_starts(backend: Backend) -> None:
    earlier_runs, other_runs = backend.start_other(), backend.start_other(task="predict")
    operator = backend.build("end(done=True)")
    operator.environment["RESULT_URI"] = backend.result_uri.replace("-1.json", "-2.json")
    assert execute(operator, try_number=2) == {"done": True}
    assert not earlier_runs()
    assert other_runs()


def test_an_older_try_that_ends_late_does_not_end_the_next(backend: Backend) -> None:
    operator = backend.build("print('ready'); time.sleep(60)")
    next_runs: list[Any] = []
    with (
        killed_when_logged(
            "ready", operator, first=lambda: next_runs.append(backend.start_other(try_number=2))
        ),
        pytest.raises(Exception, match="stopped from outside"),
    ):
        execute(operator)
    assert next_runs[0]()
    backend.close()
