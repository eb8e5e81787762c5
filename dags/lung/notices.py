"""Tells people how a run ended: a line in the log, and a message to a webhook where there is one.

The connection `lung_webhook` (type http) names an incoming webhook of Slack, Mattermost or Teams:
its URL as host, or as host and, where the end of the path is secret, password, which Airflow masks.
It is given {"text": ...}. A webhook that does not answer is a line in the log and fails no task.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Connection, Context
from airflow.sdk.exceptions import AirflowException
from airflow.sdk.log import mask_secret

from lung.contract import connection, read_result

log = logging.getLogger(__name__)

WEBHOOK_CONNECTION = "lung_webhook"
WEBHOOK_SECONDS = 10
LONGEST_ERROR = 2000
NO_ERROR = (
    "The task's process was lost, by want of memory or with its machine: see the scheduler's log"
)
OUTCOMES = {
    "first": "has its first champion",
    "replaced": "has a new champion",
    "kept": "keeps its champion",
    "none": "has no champion yet",
}
# Whose results a run can find done.
REUSABLE = ("download", "preprocess", "train", "predict", "evaluate")


def tell_of_failure(context: Context) -> None:
    """An `on_failure_callback`: which task failed, on which try, why, and where its log is."""
    instance = context["ti"]
    # A lost task is told by the DAG processor, which has no exception.
    error = str(context.get("exception") or NO_ERROR)
    is_part = instance.map_index is not None and instance.map_index >= 0
    part = f" [{instance.map_index}]" if is_part else ""
    tell(
        f"{instance.dag_id}: {instance.task_id}{part} failed on try {instance.try_number} "
        f"of the run {instance.run_id}\n{error[:LONGEST_ERROR]}\nLog: {instance.log_url}"
    )


def tell_of_champion(context: Context) -> None:
    """publish's `on_success_callback`: what became of the champion, why, and what was reused."""
    instance = context["ti"]
    result = instance.xcom_pull(instance.task_id)
    run = read_result(result["manifest"])
    decision, test_dice = run["details"]["champion"], run["headline"]["test_dice"]
    tell(
        f"{instance.dag_id}: {run['config']['name']} {OUTCOMES[decision['outcome']]}, "
        f"version {decision['version']}, in the run {instance.run_id}\n"
        f"{decision['reason']} Test Dice {'unknown' if test_dice is None else f'{test_dice:.4f}'}. "
        f"{_reused(instance)}\n"
        f"Report: {result['manifest'].rpartition('/')[0]}/report.html\n"
        f"Run: {instance.log_url.partition('/tasks/')[0]}"
    )


def _reused(instance: Any) -> str:
    """Which of the run's jobs found their work done by an earlier run."""
    found = []
    for task in REUSABLE:
        pulled = instance.xcom_pull(task)
        parts = pulled if isinstance(pulled, list) else [pulled]
        if all(part and part["reused"] for part in parts):
            found.append(task)
    if len(found) == len(REUSABLE):
        return "Nothing had changed: all work before publish was reused from an earlier run."
    return f"Reused from an earlier run: {', '.join(found) or 'nothing'}."


def tell(text: str) -> None:
    """Log the text and send it to the webhook, if there is one; whatever happens, say no URL."""
    log.info("%s", text)
    try:
        webhook = connection(WEBHOOK_CONNECTION)
        trouble = post(webhook_url(webhook), text) if webhook else ""
    except (AirflowException, ValueError) as error:
        trouble = f"the connection cannot be used ({type(error).__name__})"
    if trouble:
        log.warning(
            "The webhook of the connection %s was not told: %s. Check the connection's host, the "
            "webhook's URL, and its password, the secret end of it",
            WEBHOOK_CONNECTION,
            trouble,
        )


def post(url: str, text: str) -> str:
    """Post the text; returns what went wrong, if anything."""
    # Here and not above: it takes a third of a second, and every parse of a DAG would pay for it.
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
    """The URL of the connection, in whichever of its fields the form or a URI put the pieces.

    Raises ValueError where it has no host.
    """
    host, schema = webhook.host or "", webhook.schema or ""
    if not host:
        raise ValueError("no host")
    is_protocol = schema in ("http", "https")
    base = host if "://" in host else f"{schema if is_protocol else webhook.conn_type}://{host}"
    port = f":{webhook.port}" if webhook.port else ""
    path = "" if is_protocol else schema
    pieces = (base.rstrip("/") + port, path.strip("/"), webhook.password or "")
    return "/".join(piece for piece in pieces if piece)
