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
def test_a_run_id_becomes_fit_for_a_folder(run_id: str, safe: str) -> None:
    from lung.tasks import safe_run_id

    assert safe_run_id(run_id) == safe


def test_a_long_run_id_is_cut_and_two_of_them_stay_two() -> None:
    from jobs.settings.config import DownloadConfig
    from lung.tasks import safe_run_id

    first, second = (safe_run_id("r:" + "x" * 240 + end) for end in "ab")
    assert first != second
    for run_id in (first, second):
        DownloadConfig(source="synthetic://phantoms", out="s3://lung", run_id=run_id)


def test_flags_are_the_jobs_options_that_stand_on_the_form() -> None:
    from lung.tasks import flags

    assert flags("publish")[:2] == ["--name", "{{ params.name }}"]
    assert "--batch-size" in flags("train")
    assert flags("evaluate")[:1] == ["--test-sources"]


def test_an_option_that_may_be_empty_is_given_as_an_empty_text_where_the_form_says_null() -> None:
    from jinja2 import Template

    from lung.tasks import flags

    given = flags("preprocess")
    template = given[given.index("--split-file") + 1]
    assert Template(template).render(params={"split_file": None}) == ""
    assert Template(template).render(params={"split_file": "s3://b/x.csv"}) == "s3://b/x.csv"


def test_the_source_of_scheduled_runs_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.tasks import params

    default = params("download")["source"].resolve()
    monkeypatch.setenv("LUNG_SOURCE", "s3://hospital/films/")
    assert params("download")["source"].resolve() == "s3://hospital/films/" != default


def test_the_inbox_and_the_containers_limits_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.tasks import container_params, params

    monkeypatch.setenv("LUNG_INBOX", "s3://hospital/new/")
    monkeypatch.setenv("LUNG_JOBS_MEMORY", "20g")
    monkeypatch.setenv("LUNG_SHM_SIZE", "4g")
    fields = params("inbox", **container_params())
    found = [fields[name].resolve() for name in ("inbox", "memory", "shm_size")]
    assert found == ["s3://hospital/new/", "20g", "4g"]


def test_both_backends_run_the_same_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    from lung.tasks import stage

    monkeypatch.setenv("LUNG_BUCKET_URI", "s3://b/p")
    for backend in ("docker", "process"):
        monkeypatch.setenv("LUNG_BACKEND", backend)
        made[backend] = stage(
            "train", ["--epochs", "3"], execution_timeout=timedelta(hours=1), retries=4
        )
    assert made["docker"].command == made["process"].command
    assert made["docker"].environment == made["process"].environment
    assert made["docker"].command[:6] == ["python", "-m", "jobs", "train", "--epochs", "3"]
    assert made["docker"].command[6:8] == ["--out", "s3://b/p"]
    assert made["docker"].retries == made["process"].retries == 4


def test_the_settings_reach_the_container_and_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.tasks import backend

    monkeypatch.setenv("LUNG_JOBS_IMAGE", "registry.example/lung-jobs:1.2")
    monkeypatch.setenv("LUNG_DOCKER_NETWORK", "private")
    monkeypatch.setenv("LUNG_JOBS_PYTHON", "/opt/jobs/bin/python")
    operator, where = backend("docker")
    assert operator.__name__ == "ContainerOperator"
    assert where["image"] == "registry.example/lung-jobs:1.2"
    assert where["network_mode"] == "private"
    operator, where = backend("process")
    assert operator.__name__ == "ProcessOperator"
    assert where["python"] == "/opt/jobs/bin/python"


def test_an_unknown_backend_is_refused_with_those_that_there_are() -> None:
    from lung.tasks import backend

    with pytest.raises(ValueError, match="'podman': it can be docker or process"):
        backend("podman")


def test_every_setting_is_documented() -> None:
    from lung import stages

    assert stages.__doc__ is not None
    documented = set(re.findall(r"LUNG_[A-Z_]+", stages.__doc__))
    assert documented == stages.DEFAULTS.keys()


def test_what_is_on_no_form_is_refused_by_name() -> None:
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowFailException

    from lung.tasks import refuse_unknown_params

    dag = SimpleNamespace(dag_id="lung_segmentation", params={"epochs": 40, "size": 512})

    def check(conf: dict[str, Any] | None) -> None:
        refuse_unknown_params({"dag": dag, "dag_run": SimpleNamespace(conf=conf)})

    check(None)
    check({"epochs": 3})
    with pytest.raises(AirflowFailException, match=r"given epoch, .* any of epochs, size"):
        check({"epoch": 3})


def test_a_remote_engine_is_reached_with_the_certificates_of_the_docker_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.tasks import stage

    ca, cert, key = (tmp_path / f"{name}.pem" for name in ("ca", "cert", "key"))
    for file in (ca, cert, key):
        file.touch()
    monkeypatch.setenv("DOCKER_HOST", "tcp://gpu:2376")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    assert stage("download", []).hook._DockerHook__tls is False
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    hook = stage("download", []).hook
    tls = hook._DockerHook__tls
    assert (tls.cert, tls.ca_cert) == ((str(cert), str(key)), str(ca))
    assert hook._DockerHook__base_url == ["https://gpu:2376"]
