"""Exit codes, credentials and results: what the task and its job exchange."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs import errors
from tests.support.airflow_tasks import connection_of

pytestmark = pytest.mark.airflow

JOB_ERRORS = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.JobError)
]


@pytest.mark.parametrize(
    ("code", "is_retried"),
    [
        (2, False),
        (65, False),
        (77, False),
        (1, True),
        (69, True),
        (75, True),
        (125, True),
        (126, True),
        (127, True),
        (137, True),
        (143, True),
    ],
)
def test_2_and_65_and_77_are_never_retried_and_all_other_exit_codes_are(
    code: int, is_retried: bool
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lung.contract import Ending, failure

    error = failure(Ending(code, "JobError: the films are blank"))
    assert isinstance(error, AirflowFailException) is not is_retried
    assert f"exit code {code}" in str(error)
    assert str(error).endswith("Its last line: JobError: the films are blank")


@pytest.mark.parametrize("error", JOB_ERRORS)
def test_every_exit_code_of_the_jobs_has_a_meaning_and_is_retried_as_its_error_demands(
    error: type[errors.JobError],
) -> None:
    from lung.contract import MEANINGS, NEVER_RETRIED

    assert error.exit_code == 1 or error.exit_code in MEANINGS
    never = issubclass(error, (errors.ConfigError, errors.BadDataError, errors.AccessError))
    assert (error.exit_code in NEVER_RETRIED) is never


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (2, "Correct the value that the log names"),
        (65, "Mend or remove the films that the log names, then clear this task"),
        (69, "check that S3 and the source of the films answer"),
        (75, "The next try resumes from there"),
        (77, "Renew the keys in the connection lung_s3"),
        (137, "Give the machine more memory, or lower the batch size"),
        (1, "Correct what its log names"),
    ],
)
def test_every_failure_names_a_remedy(code: int, remedy: str) -> None:
    from lung.contract import Ending, failure

    assert remedy in str(failure(Ending(code, "an epoch")))


def test_the_error_of_a_stopped_container_does_not_mention_memory() -> None:
    from lung.contract import Ending, failure

    text = str(failure(Ending(137, was_stopped=True)))
    assert "stopped, by `docker stop` or because the engine stopped" in text
    assert "memory" not in text


def test_the_error_of_a_job_killed_for_memory_has_the_limit_and_the_remedy() -> None:
    from lung.contract import Ending, failure

    text = str(failure(Ending(137, "epoch 3 of 40", memory_limit="8g")))
    assert "killed for memory" in text
    assert "limit is 8g" in text
    assert "LUNG_JOBS_MEMORY" in text and "batch size" in text


JOB = ["python", "-m", "jobs", "train", "--out", "s3://lung/out"]
DOWNLOAD = ["python", "-m", "jobs", "download", "--source"]


def test_the_credentials_come_from_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.contract import private_environment

    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    s3 = keys | {"AWS_ENDPOINT_URL": "http://10.0.0.1:8333"}
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    assert private_environment(JOB) == s3 | {"AWS_DEFAULT_REGION": "us-east-1"}


@pytest.mark.parametrize(
    ("command", "has_token"),
    [
        ([*DOWNLOAD, "kaggle://owner/name"], True),
        ([*DOWNLOAD, "s3://lung/films+kaggle://owner/name@2", "--out", "s3://lung/out"], True),
        ([*DOWNLOAD, "s3://lung/films"], False),
        ([*DOWNLOAD, "https://host/kaggle/films.zip?from=kaggle"], False),
        ([*DOWNLOAD, "file:///films/kaggle:"], False),
        (JOB, False),
        ([*JOB, "--force-champion", "trained on kaggle://owner/name"], False),
    ],
)
def test_only_a_download_from_kaggle_gets_the_token(
    command: list[str], has_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.contract import private_environment

    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    s3 = keys | {"AWS_ENDPOINT_URL": "http://10.0.0.1:8333"}
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    kaggle = json.dumps({"conn_type": "generic", "password": "KGAT_token"})
    monkeypatch.setenv("AIRFLOW_CONN_KAGGLE", kaggle)
    tokens = [value for value in private_environment(command).values() if value == "KGAT_token"]
    assert tokens == ["KGAT_token"] * has_token


def test_a_connection_to_aws_itself_names_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.contract import private_environment

    extra = {"region_name": "eu-central-1"}
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", json.dumps(connection))
    assert private_environment(JOB) == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }


def test_a_missing_connection_says_how_to_add_it_and_is_not_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lung.contract import run_job

    monkeypatch.delenv("AIRFLOW_CONN_LUNG_S3", raising=False)

    def never(secrets: dict[str, str]) -> Any:
        raise AssertionError("the job was started")

    with pytest.raises(AirflowFailException, match=r"'lung_s3' is not defined: add it .*login"):
        run_job(never, JOB, "s3://lung/results/train--1-1.json")


def test_a_result_is_read_from_s3_after_an_older_one_was_deleted(
    s3: dict[str, str], store: Any, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.contract import Ending, run_job

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    uri = f"{out}/results/train--1-1.json"
    store.write_json(uri, {"job": "of an older run"})

    def job(secrets: dict[str, str]) -> Ending:
        assert not store.exists(uri)
        store.write_json(uri, {"job": "train"})
        return Ending(0)

    assert run_job(job, JOB, uri) == {"job": "train"}


def test_a_memory_limit_that_killed_a_try_twice_is_not_tried_a_third_time(
    s3: dict[str, str], store: Any, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from lung.contract import Ending, run_job

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))

    def is_final(task: str, try_number: int, ending: Ending) -> bool:
        uri = f"{out}/runs/weekly/results/{task}-{try_number}.json"
        with pytest.raises(AirflowException) as raised:
            run_job(lambda secrets: ending, JOB, uri)
        if isinstance(raised.value, AirflowFailException):
            assert "twice at the same limit, 8g" in str(raised.value)
            assert "LUNG_JOBS_MEMORY" in str(raised.value)
        return isinstance(raised.value, AirflowFailException)

    at_8g, at_16g = Ending(137, memory_limit="8g"), Ending(137, memory_limit="16g")
    assert not is_final("train--1", 1, at_8g)
    assert is_final("train--1", 2, at_8g)
    # Cleared after the limit was raised, and after it was lowered again.
    assert not is_final("train--1", 3, at_16g)
    assert not is_final("train--1", 4, at_8g)
    assert not is_final("train--1", 5, Ending(75))
    assert not is_final("train--1", 6, at_8g)
    # Another task, another shard, and a run that was deleted and is started anew.
    assert not is_final("predict-0", 7, at_8g)
    assert not is_final("predict-1", 8, at_8g)
    assert not is_final("train--1", 1, Ending(1))
    assert not is_final("train--1", 2, at_8g)
    # publish reads every object of this folder as a job's result.
    assert list(store.list_objects(f"{out}/runs/weekly/results/")) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"[" * 500_000])
def test_a_result_other_than_a_json_object_fails(
    s3: dict[str, str], store: Any, out: str, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    from airflow.sdk.exceptions import AirflowException

    from lung.contract import read_result

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    store.write(f"{out}/r.json", content)
    with pytest.raises(AirflowException, match=rf"{out}/r\.json"):
        read_result(f"{out}/r.json")


def test_a_result_larger_than_any_is_refused_and_not_parsed(
    s3: dict[str, str], store: Any, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException

    from lung.contract import read_result

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    store.write(f"{out}/r.json", b"{}" + b" " * 2**20)
    assert read_result(f"{out}/r.json", 2**20 + 2) == {}
    with pytest.raises(AirflowException, match=r"over 1048576 bytes"):
        read_result(f"{out}/r.json")


def test_an_s3_that_does_not_answer_is_an_error_in_a_few_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from lung.contract import read_result

    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    connection = connection_of(keys | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection)
    with pytest.raises(AirflowException, match=r"http://127\.0\.0\.1:1") as raised:
        read_result("s3://lung/r.json")
    assert not isinstance(raised.value, AirflowFailException)
