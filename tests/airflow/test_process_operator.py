"""What holds for the process backend only; `test_endings.py` covers both backends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.airflow_tasks import connection_of, events, execute, when_logged
from tests.support.operators import ProcessBackend

pytestmark = pytest.mark.airflow


@pytest.fixture
def backend(
    s3: dict[str, str], out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProcessBackend]:
    backend = ProcessBackend(s3, out, str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    yield backend
    assert backend.left() == []


def test_a_job_runs_in_the_project_with_its_credentials_and_without_airflows_secrets(
    backend: ProcessBackend, tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "not for jobs")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    result = execute(backend.build("end(cwd=os.getcwd(), environment=dict(os.environ))"))
    assert result["cwd"] == str(tmp_path)
    environment = result["environment"]
    credentials = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    credentials.pop("AWS_CA_BUNDLE", None)
    assert credentials == {name: value for name, value in s3.items() if name.startswith("AWS_")}
    assert not [name for name in environment if "AIRFLOW" in name]


def test_every_line_is_logged_when_it_is_printed_and_the_last_one_too(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    # The job goes on only if its first line was logged while it ran.
    code = """
print("first")
while not os.path.exists("go"):
    time.sleep(0.05)
end()
print("é", "\\r50 %")
print("last", end="")
"""
    with when_logged("first", (tmp_path / "go").touch) as entries:
        execute(backend.build(code))
    assert [line for line in events(entries) if "AWS" not in line] == ["first", "é", "50 %", "last"]


def test_control_characters_of_a_jobs_output_are_logged_as_escapes(
    backend: ProcessBackend,
) -> None:
    code = 'print("肺 \\x1b[2J\\u202egnp \\x85 end")\nend()'
    with when_logged("end", lambda: None) as entries:
        execute(backend.build(code))
    assert r"肺 \x1b[2J\u202egnp \x85 end" in events(entries)


def test_a_process_sees_the_gpus_of_its_share_that_no_other_job_has(
    backend: ProcessBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0, GPU-a, NVIDIA H200, 4\necho 1, GPU-b, NVIDIA H200, 4\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    uri = "s3://lung/results/predict-0-1.json"
    variables = {"RESULT_URI": uri, "CUDA_VISIBLE_DEVICES": "GPU-a"}
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    code = "end(gpus=os.environ['CUDA_VISIBLE_DEVICES'])"
    with subprocess.Popen(sleep, env=os.environ | variables) as other:
        try:
            assert execute(backend.build(code, gpus="1")) == {"gpus": "GPU-b"}
            assert execute(backend.build(code, gpus=0)) == {"gpus": ""}
        finally:
            other.kill()


def test_the_error_of_a_missing_python_names_the_remedy(backend: ProcessBackend) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"no /nowhere/python.*LUNG_JOBS_PYTHON"):
        execute(backend.build("", python="/nowhere/python"))
