from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_tasks import (
    SUPERVISOR_SECONDS,
    command,
    connection_of,
    events,
    execute,
    killed_when_logged,
    logged,
    when_logged,
)

pytestmark = pytest.mark.airflow


@pytest.fixture
def result_uri(out: str) -> str:
    return f"{out}/results/train--1-1.json"


@pytest.fixture
def make(
    s3: dict[str, str], result_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """An operator that runs Python code as its job."""
    from lung.process_operator import ProcessOperator

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))

    def build(code: str, **options: Any) -> Any:
        described = {"task_id": "train", "python": sys.executable, "home": str(tmp_path)}
        environment = {"RESULT_URI": result_uri}
        return ProcessOperator(
            command=command(code), environment=environment, **(described | options)
        )

    return build


@pytest.fixture(autouse=True)
def nothing_is_left(result_uri: str) -> Iterator[None]:
    """Whatever a test does to its job, no process of it is left, in any session."""
    from lung.process_operator import processes

    yield
    assert list(processes(result_uri)) == []


def test_a_job_returns_the_result_that_it_wrote(make: Any) -> None:
    assert execute(make("end(manifest='s3://lung/x/manifest.json')")) == {
        "manifest": "s3://lung/x/manifest.json"
    }


def test_a_job_runs_in_the_project_with_its_credentials_and_none_of_airflows(
    make: Any, tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "not for jobs")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    result = execute(make("end(cwd=os.getcwd(), names=dict(os.environ))"))
    assert result["cwd"] == str(tmp_path)
    given = {name for name in result["names"] if name.startswith("AWS_")}
    assert given - {"AWS_CA_BUNDLE"} == s3.keys()
    assert {name: result["names"][name] for name in s3} == s3
    assert not [name for name in result["names"] if "AIRFLOW" in name]


def test_every_line_is_logged_as_soon_as_it_is_said_down_to_the_last(
    make: Any, tmp_path: Path
) -> None:
    # The job goes on only because its first line was seen while it ran.
    code = """
print("first")
while not os.path.exists("go"):
    time.sleep(0.05)
end()
print("é", "\\r50 %")
print("last", end="")
"""
    with when_logged("first", (tmp_path / "go").touch) as entries:
        execute(make(code))
    assert [line for line in events(entries) if "AWS" not in line] == ["first", "é", "50 %", "last"]


def test_a_job_that_fails_is_an_error_with_its_last_line(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    code = "print('2026-11-23 10:00:00,000 ERROR BadDataError: x.zip is cut'); sys.exit(65)"
    with pytest.raises(AirflowFailException, match=r"65: bad data.*BadDataError: x\.zip is cut$"):
        execute(make(code))


def test_a_job_that_writes_no_result_fails_even_where_an_older_one_lies(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    execute(make("end(old=True)"))
    with pytest.raises(AirflowException, match=r"cannot be read from s3://.*NoSuchKey"):
        execute(make("print('done')"))


def test_a_time_out_stops_the_job_gently_and_is_the_error_shown(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowTaskTimeout

    code = """
def save(*_):
    print("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
time.sleep(60)
"""
    with logged() as entries, pytest.raises(AirflowTaskTimeout):
        execute(make(code, execution_timeout=timedelta(seconds=4)))
    assert events(entries)[-1] == "saved"


# The child leaves the session, as the ranks of a torch launcher do.
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("ready")
time.sleep(60)
"""


def test_a_kill_ends_a_stubborn_job_and_its_children_before_the_supervisor_loses_patience(
    make: Any,
) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = make(STUBBORN)
    with (
        killed_when_logged("ready", operator) as seconds,
        pytest.raises(AirflowException, match="stopped from outside"),
    ):
        execute(operator)
    assert seconds[0] < SUPERVISOR_SECONDS


def test_a_job_does_not_start_after_a_kill(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    operator = make(STUBBORN)
    operator.on_kill()
    started = time.monotonic()
    with pytest.raises(AirflowException, match="stopped from outside"):
        execute(operator)
    assert time.monotonic() - started < 10


def test_a_killed_job_takes_its_children_along_and_its_signal_is_named(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowException

    code = """
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with pytest.raises(AirflowException, match=r"137: killed .SIGKILL., most often .* memory"):
        execute(make(code))


def test_what_an_earlier_try_left_is_ended_before_the_job_starts(
    make: Any, result_uri: str
) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    left = subprocess.Popen(sleep, env=os.environ | {"RESULT_URI": result_uri})
    other = subprocess.Popen(sleep, env=os.environ | {"RESULT_URI": "s3://lung/other-1.json"})
    try:
        operator = make("end()")
        operator.environment = {"RESULT_URI": result_uri.replace("-1.json", "-2.json")}
        execute(operator, try_number=2)
        assert left.wait(1) != 0
        assert other.poll() is None
    finally:
        left.kill()
        other.kill()
        left.wait()
        other.wait()


def test_a_python_that_is_not_there_is_said_with_the_remedy(make: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"no /nowhere/python.*LUNG_JOBS_PYTHON"):
        execute(make("", python="/nowhere/python"))
