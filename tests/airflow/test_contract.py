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
        *[(code, False) for code in (2, 65, 77)],
        *[(code, True) for code in (1, 69, 75, 125, 126, 127, 137, 143)],
    ],
)
def test_2_and_65_and_77_are_never_retried_and_all_else_is(code: int, is_retried: bool) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lung.contract import Ending, failure

    error = failure(Ending(code, "2026-11-23 10:11:12,345 ERROR JobError: the films are blank"))
    assert isinstance(error, AirflowFailException) is not is_retried
    assert f"exit code {code}" in str(error)
    assert str(error).endswith("It said: JobError: the films are blank")


@pytest.mark.parametrize("error", JOB_ERRORS)
def test_every_exit_code_of_the_jobs_has_a_meaning_and_is_retried_as_it_says(
    error: type[errors.JobError],
) -> None:
    from lung.contract import MEANINGS, NEVER_RETRIED

    assert error.exit_code == 1 or error.exit_code in MEANINGS
    never = issubclass(error, (errors.ConfigError, errors.BadDataError, errors.AccessError))
    assert (error.exit_code in NEVER_RETRIED) is never


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (2, "Correct what it names"),
        (65, "Mend or take out the films that it names, then clear this task"),
        (69, "see that S3 and the source of the films answer"),
        (75, "The next try goes on from there"),
        (77, "Renew the keys in the connection lung_s3"),
        (137, "Give the machine more memory, or lower the batch size"),
        (1, "Its log says why"),
    ],
)
def test_every_failure_says_what_to_do(code: int, remedy: str) -> None:
    from lung.contract import Ending, failure

    assert remedy in str(failure(Ending(code, "an epoch")))


def test_a_container_that_was_stopped_is_not_said_to_want_memory() -> None:
    from lung.contract import Ending, failure

    text = str(failure(Ending(137, was_told_to_stop=True)))
    assert "stopped, by `docker stop` or because the engine stopped" in text
    assert "memory" not in text


def test_a_job_killed_for_memory_is_told_with_the_limit_and_what_to_change() -> None:
    from lung.contract import Ending, failure

    text = str(failure(Ending(137, "epoch 3 of 40", memory_limit="8g")))
    assert "killed for memory" in text
    assert "limit is 8g" in text
    assert "LUNG_JOBS_MEMORY" in text and "batch size" in text


def test_the_credentials_come_from_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.contract import private_environment

    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    there = keys | {"AWS_ENDPOINT_URL": "http://10.0.0.1:8333"}
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(there))
    assert private_environment() == there | {"AWS_DEFAULT_REGION": "us-east-1"}

    kaggle = json.dumps({"conn_type": "generic", "password": "KGAT_token"})
    monkeypatch.setenv("AIRFLOW_CONN_KAGGLE", kaggle)
    assert private_environment()["KAGGLE_API_TOKEN"] == "KGAT_token"


def test_a_connection_to_aws_itself_names_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung.contract import private_environment

    extra = {"region_name": "eu-central-1"}
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", json.dumps(connection))
    assert private_environment() == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }


def test_a_missing_connection_says_how_to_add_it_and_is_not_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lung.contract import carry_out

    monkeypatch.delenv("AIRFLOW_CONN_LUNG_S3", raising=False)

    def never(secrets: dict[str, str]) -> Any:
        raise AssertionError("the job was started")

    with pytest.raises(AirflowFailException, match=r"'lung_s3' is not defined: add it .*login"):
        carry_out(never, "s3://lung/results/train--1-1.json")


def test_a_result_is_read_from_s3_and_an_older_one_is_forgotten_first(
    s3: dict[str, str], store: Any, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.contract import Ending, carry_out

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    uri = f"{out}/results/train--1-1.json"
    store.write_json(uri, {"job": "of an older run"})

    def job(secrets: dict[str, str]) -> Ending:
        assert not store.exists(uri)
        store.write_json(uri, {"job": "train"})
        return Ending(0)

    assert carry_out(job, uri) == {"job": "train"}


@pytest.mark.parametrize("written", [b"", b"{", b"[1, 2]"])
def test_a_result_that_is_no_json_object_fails(
    s3: dict[str, str], store: Any, out: str, monkeypatch: pytest.MonkeyPatch, written: bytes
) -> None:
    from airflow.sdk.exceptions import AirflowException

    from lung.contract import read_result

    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))
    store.write(f"{out}/r.json", written)
    with pytest.raises(AirflowException, match=rf"{out}/r\.json"):
        read_result(f"{out}/r.json")


def test_an_s3_that_does_not_answer_is_an_error_in_a_few_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from lung.contract import read_result

    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    connection = connection_of(keys | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection)
    with pytest.raises(AirflowException, match=r"http://127\.0\.0\.1:1") as told:
        read_result("s3://lung/r.json")
    assert not isinstance(told.value, AirflowFailException)
