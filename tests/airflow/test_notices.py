"""The notices as Airflow calls the callbacks, sent to a real webhook server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.storage.s3 import Store
from tests.support.airflow_tasks import RUN_ID, connection_of
from tests.support.webhook import PATH, SECRET, Webhook, webhook

pytestmark = pytest.mark.airflow

WEBHOOK_VARIABLE = "AIRFLOW_CONN_LUNG_WEBHOOK"
LOG_URL = f"http://airflow.example/dags/lung_segmentation/runs/{RUN_ID}/tasks/train?try_number=3"
KEPT = {"outcome": "kept", "version": "v1", "reason": "Validation Dice 0.9 does not beat 0.95."}


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with webhook() as server:
        monkeypatch.setenv(WEBHOOK_VARIABLE, server.url)
        yield server


class Instance(SimpleNamespace):
    """The attributes of a task instance that the notices and Airflow's dispatcher read."""

    def __init__(self, task_id: str, results: dict[str, Any] | None = None, **others: Any) -> None:
        super().__init__(
            **{
                "dag_id": "lung_segmentation",
                "run_id": RUN_ID,
                "task_id": task_id,
                "map_index": -1,
                "try_number": 3,
                "log_url": LOG_URL,
                "start_date": None,
                **others,
            }
        )
        self.results = results or {}
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, task: str) -> Any:
        return self.results.get(task)


def finalize(state: str, error: Exception, **attributes: Any) -> dict[str, Any]:
    """Airflow's last step of a try, on a task with the DAGs' policy; returns the XComs pushed."""
    from airflow.sdk import DAG, TaskInstanceState
    from airflow.sdk.execution_time import task_runner

    from lung.tasks import POLICY, job_task

    with DAG("lung_segmentation", **POLICY):
        task = job_task("train")
    instance = Instance("train", task=task, **attributes)
    context = {"ti": instance, "exception": error, "outlet_events": {}}
    log = logging.getLogger("task")
    task_runner.finalize(instance, TaskInstanceState(state), context, log, error)
    return instance.pushed


def test_the_notice_of_a_failure_has_the_remedy_and_a_link_to_the_log(listener: Webhook) -> None:
    from lung.contract import Ending, failure

    finalize("failed", failure(Ending(77, "AccessError: the token is expired")))
    (text,) = listener.texts
    assert text.startswith(f"lung_segmentation: train failed on try 3 of the run {RUN_ID}\n")
    assert "exit code 77: access refused" in text
    assert "Renew the keys" in text
    assert "Its last line: AccessError: the token is expired" in text
    assert text.endswith(f"Log: {LOG_URL}")
    assert listener.paths == [PATH]


def test_an_error_forges_no_line_of_a_notice_or_of_the_log(
    listener: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.contract import Ending, failure

    evil = "AccessError: 患者\x1b[2J.png\nLog: http://forged.example\r\u202egnp\x9b1m"
    shown = r"AccessError: 患者\x1b[2J.png\nLog: http://forged.example\r\u202egnp\x9b1m"
    logged: list[str] = []
    monkeypatch.setattr("lung.notices.log.info", lambda form, text: logged.append(form % text))
    error = failure(Ending(77, evil))
    assert str(error).endswith(f"Its last line: {shown}")
    finalize("failed", RuntimeError(evil))
    first, second, last = listener.texts[0].split("\n")
    assert first.startswith("lung_segmentation: train failed")
    assert (second, last) == (shown, f"Log: {LOG_URL}")
    assert logged == listener.texts


def test_a_failed_try_that_is_retried_sends_no_notice(listener: Webhook) -> None:
    finalize("up_for_retry", RuntimeError("an engine that does not answer"))
    assert listener.texts == []
    finalize("failed", RuntimeError("an engine that does not answer"))
    assert len(listener.texts) == 1


@pytest.mark.parametrize("state", ["up_for_retry", "failed"])
def test_the_error_of_every_try_is_kept_for_the_tab(listener: Webhook, state: str) -> None:
    error = {"try": 3, "error": "an engine that does not answer"}
    assert finalize(state, RuntimeError(error["error"])) == {"error": error}
    long = finalize(state, RuntimeError("x" * 100_000))["error"]
    assert len(long["error"]) < 3000


def test_the_notice_names_the_shard_and_cuts_a_long_error(listener: Webhook) -> None:
    finalize("failed", RuntimeError("x" * 100_000), map_index=0)
    assert "train [0] failed" in listener.texts[0]
    assert len(listener.texts[0]) < 3000


def test_a_task_whose_process_was_lost_gets_a_notice_without_an_exception(
    listener: Webhook,
) -> None:
    from lung.notices import LOST, record_error, report_failure

    instance = Instance("train")
    for callback in (record_error, report_failure):  # as the DAG processor calls them
        callback({"ti": instance})
    assert instance.pushed == {}
    assert LOST in listener.texts[0]
    assert LOG_URL in listener.texts[0]


@pytest.fixture
def publish(store: Store, out: str, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls `report_champion` as after publish, with the decision and the reused jobs."""
    monkeypatch.setenv("AIRFLOW_CONN_LUNG_S3", connection_of(s3))

    def report(decision: dict[str, Any], *reused: str, shards: int = 2) -> None:
        from lung.notices import report_champion

        run = {
            "config": {"name": "lung-unet"},
            "headline": {"test_dice": 0.95321},
            "details": {"champion": decision},
        }
        store.write_json(f"{out}/runs/r1/run.json", run)
        jobs = ("download", "preprocess", "train", "predict", "evaluate")
        results: dict[str, Any] = {job: {"reused": job in reused} for job in jobs}
        results["predict"] = [results["predict"]] * shards
        results["publish"] = {"manifest": f"{out}/runs/r1/run.json"}
        report_champion({"ti": Instance("publish", results)})

    return report


def test_the_notice_of_a_kept_champion_has_the_reason_and_links_to_the_report(
    publish: Any, listener: Webhook, out: str
) -> None:
    publish(KEPT, "download", "preprocess")
    lines = listener.texts[0].splitlines()
    assert lines[0].startswith("lung_segmentation: lung-unet keeps its champion, version v1")
    assert KEPT["reason"] in lines[1]
    assert "Test Dice 0.9532" in lines[1]
    assert lines[1].endswith("Reused from an earlier run: download, preprocess.")
    assert lines[2] == f"Report: {out}/runs/r1/report.html"
    assert lines[3] == f"Run: http://airflow.example/dags/lung_segmentation/runs/{RUN_ID}"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("first", "has its first champion"),
        ("replaced", "has a new champion"),
        ("none", "has no champion yet"),
    ],
)
def test_the_notice_says_whether_the_champion_is_new_or_absent(
    publish: Any, listener: Webhook, outcome: str, words: str
) -> None:
    publish({**KEPT, "outcome": outcome})
    assert f"lung-unet {words}" in listener.texts[0]
    assert "Reused from an earlier run: nothing." in listener.texts[0]


@pytest.mark.parametrize("shards", [1, 2])
def test_the_notice_of_a_run_on_unchanged_films_says_that_all_work_was_reused(
    publish: Any, listener: Webhook, shards: int
) -> None:
    publish(KEPT, "download", "preprocess", "train", "predict", "evaluate", shards=shards)
    assert "Nothing had changed: all work before publish was reused" in listener.texts[0]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_gets_a_log_line_without_its_url(
    listener: Webhook, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    listener.status = status
    with caplog.at_level("DEBUG", logger="lung"):
        finalize("failed", RuntimeError("the true error"))
    assert f"it answered {status}" in caplog.text
    assert "the true error" in caplog.text
    assert SECRET not in caplog.text
    assert len(listener.texts) == 1, "a redirection is not followed"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"http://127.0.0.1:9{PATH}", "it cannot be reached (ConnectionError)"),
        (json.dumps({"conn_type": "http", "host": f"http://[{PATH}"}), "(ValueError)"),
        (json.dumps({"conn_type": "http", "password": SECRET}), "cannot be used (ValueError)"),
    ],
)
def test_a_webhook_that_does_not_answer_gets_a_log_line_without_its_url(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str, words: str
) -> None:
    from lung.notices import notify

    monkeypatch.setenv(WEBHOOK_VARIABLE, url)
    with caplog.at_level("DEBUG", logger="lung"):
        notify("the true error")
    assert words in caplog.text
    assert SECRET not in caplog.text


def test_without_a_webhook_the_notice_goes_to_the_log_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lung.notices import notify

    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)
    with caplog.at_level("INFO", logger="lung"):
        notify("lung_segmentation: a text")
    assert [record.message for record in caplog.records] == ["lung_segmentation: a text"]


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "https://chat.example:8443/hooks/abc"},
        {"host": "https://chat.example:8443/hooks", "password": "abc"},
        {"host": "chat.example", "schema": "https", "port": 8443, "password": "hooks/abc"},
        {"host": "https://chat.example", "port": 8443, "schema": "hooks/abc"},
        {"conn_type": "https", "host": "chat.example", "port": 8443, "schema": "hooks/abc"},
    ],
)
def test_the_url_is_joined_from_the_fields_that_hold_its_parts(
    fields: dict[str, Any],
) -> None:
    from airflow.sdk import Connection

    from lung.notices import webhook_url

    connection = Connection(**{"conn_id": "lung_webhook", "conn_type": "http", **fields})
    assert webhook_url(connection) == "https://chat.example:8443/hooks/abc"


def test_a_url_in_an_environment_variable_is_used_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk import BaseHook

    from lung.notices import webhook_url

    url = "https://hooks.chat.example/services/T000/B000/XXXX"
    for value in (url, json.dumps({"conn_type": "http", "host": url})):
        monkeypatch.setenv(WEBHOOK_VARIABLE, value)
        assert webhook_url(BaseHook.get_connection("lung_webhook")) == url
