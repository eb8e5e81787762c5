"""Notices of failed tasks and of the champion: a log line, and a message to a webhook if defined.

The error of a failed try is also kept as the task's XCom `error`, from which the tab shows it.

The connection `lung_webhook` (type http) names an incoming webhook of Slack, Mattermost or Teams:
its URL as host, or the URL without its secret end as host and that end as password, which Airflow
masks. The message is {"text": ...}. A webhook that does not answer gets a log line and fails no
task.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Connection, Context
from airflow.sdk.exceptions import AirflowException
from airflow.sdk.log import mask_secret

from lung.contract import LARGEST_RUN, connection, read_result
from lung.visible_text import visible

log = logging.getLogger(__name__)

WEBHOOK_CONNECTION = "lung_webhook"
WEBHOOK_SECONDS = 10
# Characters of a task's error in a message and on the tab.
LONGEST_ERROR = 2000
# The key of the XCom {"try": number, "error": text}; Airflow deletes it when the next try starts.
ERROR_KEY = "error"
# Of a task without an exception. The DAGs' pages and the tab have the same words.
LOST = (
    "The task's process was lost: it was killed, mostly for lack of memory, or its machine went "
    "away. A try that is left resumes from the saved state; after the last one, clear this task"
)
# The champion's `outcome` in run.json, in words.
OUTCOMES = {
    "first": "has its first champion",
    "replaced": "has a new champion",
    "kept": "keeps its champion",
    "none": "has no champion yet",
}
# The tasks that can reuse an earlier run's work.
REUSABLE = ("download", "preprocess", "train", "predict", "evaluate")


def record_error(context: Context) -> None:
    """An `on_retry_callback` and `on_failure_callback`: keeps the try's error for the tab."""
    # For a lost task the DAG processor calls this, without an exception; it can push no XCom.
    if error := context.get("exception"):
        instance = context["ti"]
        content = {"try": instance.try_number, "error": str(error)[:LONGEST_ERROR]}
        instance.xcom_push(ERROR_KEY, content)


def report_failure(context: Context) -> None:
    """An `on_failure_callback`: names the task, the try and the error, and links to the log."""
    instance = context["ti"]
    error = str(context.get("exception") or LOST)
    is_mapped = instance.map_index is not None and instance.map_index >= 0
    index = f" [{instance.map_index}]" if is_mapped else ""
    notify(
        f"{instance.dag_id}: {instance.task_id}{index} failed on try {instance.try_number} "
        f"of the run {instance.run_id}",
        error[:LONGEST_ERROR],
        f"Log: {instance.log_url}",
    )


def report_champion(context: Context) -> None:
    """publish's `on_success_callback`: the decision on the champion, why, and what was reused."""
    instance = context["ti"]
    result = instance.xcom_pull(instance.task_id)
    run = read_result(result["manifest"], LARGEST_RUN)
    decision, test_dice = run["details"]["champion"], run["headline"]["test_dice"]
    notify(
        f"{instance.dag_id}: {run['config']['name']} {OUTCOMES[decision['outcome']]}, "
        f"version {decision['version']}, in the run {instance.run_id}",
        f"{decision['reason']} Test Dice {'unknown' if test_dice is None else f'{test_dice:.4f}'}. "
        f"{_reused(instance)}",
        f"Report: {result['manifest'].rpartition('/')[0]}/report.html",
        f"Run: {instance.log_url.partition('/tasks/')[0]}",
    )


def _reused(instance: Any) -> str:
    """A sentence on the run's jobs whose work an earlier run had done."""
    reused = []
    for task in REUSABLE:
        result = instance.xcom_pull(task)
        shards = result if isinstance(result, list) else [result]
        if all(shard and shard["reused"] for shard in shards):
            reused.append(task)
    if len(reused) == len(REUSABLE):
        return "Nothing had changed: all work before publish was reused from an earlier run."
    return f"Reused from an earlier run: {', '.join(reused) or 'nothing'}."


def notify(*lines: str) -> None:
    """Log the lines and send them to the webhook, if defined; no log line holds the webhook's URL.

    Control characters within a line are escaped: an error's text makes no line of its own.
    """
    text = "\n".join(map(visible, lines))
    log.info("%s", text)
    try:
        webhook = connection(WEBHOOK_CONNECTION)
        trouble = post(webhook_url(webhook), text) if webhook else ""
    except (AirflowException, ValueError) as error:
        trouble = f"the connection cannot be used ({type(error).__name__})"
    if trouble:
        log.warning(
            "No message to the webhook of the connection %s: %s. Check the connection's host, the "
            "webhook's URL, and its password, the secret end of the URL",
            WEBHOOK_CONNECTION,
            trouble,
        )


def post(url: str, text: str) -> str:
    """Post the text; returns the error in words, "" on success."""
    # Imported here: it takes a third of a second, which every parse of a DAG would pay.
    import requests

    mask_secret([url, urlsplit(url).path])
    try:
        answer = requests.post(
            url, json={"text": text}, timeout=WEBHOOK_SECONDS, allow_redirects=False
        )
    except requests.RequestException as error:
        return f"it cannot be reached ({type(error).__name__})"
    return "" if answer.status_code < 300 else f"it answered {answer.status_code}"


def webhook_url(webhook: Connection) -> str:
    """The URL of the connection, whose parts Airflow's form and a URI put into different fields.

    Raises ValueError without a host.
    """
    host, schema = webhook.host or "", webhook.schema or ""
    if not host:
        raise ValueError("no host")
    is_protocol = schema in ("http", "https")
    base = host if "://" in host else f"{schema if is_protocol else webhook.conn_type}://{host}"
    port = f":{webhook.port}" if webhook.port else ""
    path = "" if is_protocol else schema
    parts = (base.rstrip("/") + port, path.strip("/"), webhook.password or "")
    return "/".join(part for part in parts if part)
