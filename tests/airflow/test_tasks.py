"""The settings, the form's fields and the command line that a job's task gets from them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.airflow


@pytest.mark.parametrize(
    ("run_id", "safe"),
    [
        ("manual__1", "manual__1"),
        ("scheduled__2026-11-23T00:00:00+00:00", "scheduled__2026-11-23T00-00-00-00-00"),
        ("../../etc/passwd", "etc-passwd"),
        ("a b$(rm)", "a-b--rm-"),
        ("é", "run"),
    ],
)
def test_a_run_id_becomes_safe_for_a_folders_name(run_id: str, safe: str) -> None:
    from lung.tasks import safe_run_id

    assert safe_run_id(run_id) == safe


def test_a_long_run_id_is_cut_and_stays_distinct() -> None:
    from jobs.settings.config import DownloadConfig
    from lung.tasks import safe_run_id

    first, second = (safe_run_id("r:" + "x" * 240 + end) for end in "ab")
    assert first != second
    for run_id in (first, second):
        DownloadConfig(source="synthetic://phantoms", out="s3://lung", run_id=run_id)


def test_a_jobs_options_on_the_form_are_arguments_of_its_command() -> None:
    from lung.tasks import command, form_arguments

    words = command("publish", form_arguments("publish"))
    assert words[:6] == ["python", "-m", "jobs", "publish", "--name", "{{ params.name }}"]
    assert "--batch-size" in command("train", form_arguments("train"))
    assert list(form_arguments("evaluate")) == ["test_sources"]


def test_an_empty_text_field_of_the_form_is_an_empty_argument() -> None:
    from jinja2 import Template

    from lung.tasks import form_arguments

    # The form sends null for it.
    template = Template(form_arguments("preprocess")["split_file"])
    assert template.render(params={"split_file": None}) == ""
    assert template.render(params={"split_file": "s3://b/x.csv"}) == "s3://b/x.csv"


def test_a_setting_replaces_the_source_of_scheduled_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.tasks import params

    default = params("download")["source"].resolve()
    monkeypatch.setenv("LUNG_SOURCE", "s3://hospital/films/")
    assert params("download")["source"].resolve() == "s3://hospital/films/" != default


def test_settings_replace_the_inbox_and_the_containers_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lung.tasks import container_params, params

    monkeypatch.setenv("LUNG_INBOX", "s3://hospital/new/")
    monkeypatch.setenv("LUNG_JOBS_MEMORY", "20g")
    monkeypatch.setenv("LUNG_SHM_SIZE", "4g")
    fields = params("inbox", **container_params())
    values = [fields[name].resolve() for name in ("inbox", "memory", "shm_size")]
    assert values == ["s3://hospital/new/", "20g", "4g"]


def test_both_backends_run_the_same_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.tasks import job_task

    tasks: dict[str, Any] = {}
    monkeypatch.setenv("LUNG_BUCKET_URI", "s3://b/p")
    for backend in ("docker", "process"):
        monkeypatch.setenv("LUNG_BACKEND", backend)
        tasks[backend] = job_task(
            "train", {"processes": "3"}, execution_timeout=timedelta(hours=1), retries=4
        )
    assert tasks["docker"].command == tasks["process"].command
    assert tasks["docker"].environment == tasks["process"].environment
    assert tasks["docker"].command[:6] == ["python", "-m", "jobs", "train", "--processes", "3"]
    assert tasks["docker"].command[-4:-2] == ["--out", "s3://b/p"]
    assert tasks["docker"].command[-2] == "--run-id"
    assert tasks["docker"].retries == tasks["process"].retries == 4


def test_the_settings_reach_the_container_and_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.tasks import backend

    monkeypatch.setenv("LUNG_JOBS_IMAGE", "registry.example/lung-jobs:1.2")
    monkeypatch.setenv("LUNG_DOCKER_NETWORK", "private")
    monkeypatch.setenv("LUNG_JOBS_PYTHON", "/opt/jobs/bin/python")
    operator, options = backend("docker")
    assert operator.__name__ == "ContainerOperator"
    assert options["image"] == "registry.example/lung-jobs:1.2"
    assert options["network_mode"] == "private"
    operator, options = backend("process")
    assert operator.__name__ == "ProcessOperator"
    assert options["python"] == "/opt/jobs/bin/python"


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    from lung.tasks import backend

    with pytest.raises(ValueError, match="'podman': it can be docker or process"):
        backend("podman")


def test_every_setting_is_documented() -> None:
    from lung import tasks

    assert tasks.__doc__ is not None
    documented = set(re.findall(r"LUNG_[A-Z_]+", tasks.__doc__))
    assert documented == tasks.DEFAULTS.keys()


def test_a_param_that_is_not_on_the_form_is_refused_by_name() -> None:
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowFailException

    from lung.tasks import refuse_unknown_params

    dag = SimpleNamespace(dag_id="lung_segmentation", params={"epochs": 40, "size": 512})

    def check(conf: dict[str, Any] | None) -> None:
        refuse_unknown_params({"dag": dag, "dag_run": SimpleNamespace(conf=conf)})

    check(None)
    check({"epochs": 3})
    with pytest.raises(AirflowFailException, match=r"no param epoch: .* among epochs, size"):
        check({"epoch": 3})


def test_a_remote_engine_is_reached_with_the_certificates_of_the_docker_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.tasks import job_task

    ca, cert, key = (tmp_path / f"{name}.pem" for name in ("ca", "cert", "key"))
    for file in (ca, cert, key):
        file.touch()
    monkeypatch.setenv("DOCKER_HOST", "tcp://gpu:2376")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    assert job_task("download").hook._DockerHook__tls is False
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    hook = job_task("download").hook
    tls = hook._DockerHook__tls
    assert (tls.cert, tls.ca_cert) == ((str(cert), str(key)), str(ca))
    assert hook._DockerHook__base_url == ["https://gpu:2376"]
