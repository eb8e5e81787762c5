"""The settings, the form's fields and the command line that a job's task gets from them."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.airflow


# Run ids that one another's folders were made for, by a change of characters, a cut or a hash.
RUN_IDS = [
    *(
        "a:b",
        "a+b",
        "a-b",
        "a b",
        "-a-b",
        "..a-b",
        "a-b\n",
        "é",
        "患者",
        "run",
        "---",
        "../../etc/passwd",
    ),
    *(
        "A-b",
        "a_b",
        "a.b",
        "a/b",
        "r:" + "x" * 240 + "a",
        "r:" + "x" * 240 + "b",
        "x" * 128,
        "x" * 129,
    ),
    *(
        "a-b-0123456789ab",
        "a-b--0123456789ab",
        "a-b--0123456789abc",
        "\ud800",
        "\u202ea-b",
        "scheduled__1",
    ),
    "scheduled__2026-11-23T00:00:00+00:00",
    "scheduled__2026-11-23T00:00:00-00:00",
    "scheduled__2026-11-23T00-00-00-00-00",
    "scheduled__2026-11-23T00:00:00+00-00",
    "_scheduled__2026-11-23T00:00:00+00:00",
    "manual__2026-11-23T09:30:00.123456+00:00_aB3dE5fG",
    "manual__2026-11-23T09-30-00.123456-00-00_aB3dE5fG",
]


@pytest.mark.parametrize(
    ("run_id", "folder"),
    [
        ("manual__1", "manual__1"),
        ("scheduled__2026-11-23T00:00:00+00:00", "scheduled__2026-11-23T00-00-00-00-00"),
        (
            "manual__2026-11-23T09:30:00.123456+00:00_aB3dE5fG",
            "manual__2026-11-23T09-30-00.123456-00-00_aB3dE5fG",
        ),
        (
            "asset_triggered__2026-11-23T00:00:00+00:00",
            "asset_triggered__2026-11-23T00-00-00-00-00",
        ),
        ("release-1.2_final", "release-1.2_final"),
        ("release-deadbeef", "release-deadbeef"),
    ],
)
def test_an_ordinary_run_id_keeps_the_folder_of_earlier_versions(run_id: str, folder: str) -> None:
    from lung.run_folder import safe_run_id

    assert safe_run_id(run_id) == folder


def test_the_run_ids_that_airflow_makes_are_ordinary_ones() -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.types import DagRunType

    from lung.run_folder import safe_run_id

    moment = datetime(2026, 11, 23, 9, 30, 0, 123456, tzinfo=UTC)
    for run_type in DagRunType:
        for logical_date in (None, moment):
            run_id = DagRun.generate_run_id(
                run_type=run_type, logical_date=logical_date, run_after=moment
            )
            assert safe_run_id(run_id) == run_id.replace(":", "-").replace("+", "-")


@pytest.mark.parametrize(
    ("run_id", "start"),
    [("../../etc/passwd", "etc-passwd--"), ("a b$(rm)", "a-b--rm---"), ("é", "run--")],
)
def test_a_run_id_becomes_safe_for_a_folders_name(run_id: str, start: str) -> None:
    from lung.run_folder import safe_run_id

    digest = hashlib.sha256(run_id.encode()).hexdigest()[:12]
    assert safe_run_id(run_id) == start + digest


def test_no_two_run_ids_have_one_folder() -> None:
    """Also where a run is named like another's folder, and like the folder of that one."""
    from jobs.settings.config import DownloadConfig
    from lung.run_folder import safe_run_id

    run_ids = list(RUN_IDS)
    for _ in range(3):
        folders = [safe_run_id(run_id) for run_id in run_ids]
        assert len(set(folders)) == len(run_ids) == len(set(run_ids))
        for folder in folders:
            DownloadConfig(source="synthetic://phantoms", out="s3://lung", run_id=folder)
        run_ids = list(dict.fromkeys(run_ids + folders))


def test_a_jobs_options_on_the_form_are_arguments_of_its_command() -> None:
    from lung.form import form_arguments
    from lung.tasks import command

    words = command("publish", form_arguments("publish"))
    assert words[:6] == ["python", "-m", "jobs", "publish", "--name", "{{ params.name }}"]
    assert "--batch-size" in command("train", form_arguments("train"))
    assert list(form_arguments("evaluate")) == ["test_sources"]


def test_an_empty_text_field_of_the_form_is_an_empty_argument() -> None:
    from jinja2 import Template

    from lung.form import form_arguments

    # The form sends null for it.
    template = Template(form_arguments("preprocess")["split_file"])
    assert template.render(params={"split_file": None}) == ""
    assert template.render(params={"split_file": "s3://b/x.csv"}) == "s3://b/x.csv"


def test_a_setting_replaces_the_source_of_scheduled_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.form import params

    default = params("download")["source"].resolve()
    monkeypatch.setenv("LUNG_SOURCE", "s3://hospital/films/")
    assert params("download")["source"].resolve() == "s3://hospital/films/" != default


def test_settings_replace_the_inbox_and_the_containers_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lung.form import container_params, params

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
            "train", {"processed": "x"}, execution_timeout=timedelta(hours=1), retries=4
        )
    assert tasks["docker"].command == tasks["process"].command
    assert tasks["docker"].environment == tasks["process"].environment
    assert tasks["docker"].command[:6] == ["python", "-m", "jobs", "train", "--processed", "x"]
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


@pytest.mark.parametrize(("text", "cores"), [("", 0), ("2", 2), ("1.5", 1.5)])
def test_the_limit_of_cores_is_a_setting(
    text: str, cores: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.tasks import backend

    monkeypatch.setenv("LUNG_JOBS_CPUS", text)
    assert backend("docker")[1]["cpu_limit"] == cores


@pytest.mark.parametrize("text", ["two", "-1", "1,5", "inf", "1e3"])
def test_a_limit_of_cores_that_is_no_number_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.tasks import backend

    monkeypatch.setenv("LUNG_JOBS_CPUS", text)
    with pytest.raises(ValueError, match=rf"LUNG_JOBS_CPUS is '{text}': it can be a number of co"):
        backend("docker")


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    from lung.tasks import backend

    with pytest.raises(ValueError, match="'podman': it can be docker or process"):
        backend("podman")


def test_every_setting_is_documented() -> None:
    from lung import settings

    assert settings.__doc__ is not None
    documented = set(re.findall(r"LUNG_[A-Z_]+", settings.__doc__))
    assert documented == settings.DEFAULTS.keys()


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
