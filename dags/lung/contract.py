"""The contract between a task and its job, the same on every backend.

At run time the task passes the job its credentials, from Airflow's connections, and RESULT_URI. The
job writes its result there as JSON and ends with an exit code of `jobs/errors.py`. The result
becomes the task's XCom; the exit code decides whether the task is retried.

Connections: `lung_s3` (type aws: login, password, extra {"endpoint_url": ..., "region_name": ...}),
required; `kaggle` (password: an API token), only for kaggle:// sources.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

from lung.job_log import LAST_LINE
from lung.visible_text import visible

S3_CONNECTION = "lung_s3"
KAGGLE_CONNECTION = "kaggle"
DEFAULT_REGION = "us-east-1"
# Airflow's supervisor kills a task's process 5 s after SIGTERM: the job gets less than that.
STOP_GRACE_SECONDS = 3
STOPPED = "The task was stopped from outside, and its job with it"
# Makes the job watch its standard input for heartbeats (`jobs/runtime/lifeline.py`).
LIFELINE = {"LUNG_LIFELINE": "stdin"}

LESS_MEMORY = "lower the batch size, the image size or the network"
# {exit code: (meaning, remedy)}
MEANINGS = {
    2: (
        "wrong arguments or configuration, or an absent bucket or source",
        "Correct the value that the log names (form or settings) and trigger a new run",
    ),
    65: ("bad data", "Mend or remove the films that the log names, then clear this task"),
    69: (
        "a service is unavailable",
        "It is retried; if that does not help, check that S3 and the source of the films answer",
    ),
    75: (
        "interrupted, its state saved",
        "The next try resumes from there; after the last try, clear this task",
    ),
    77: (
        "access refused",
        "Renew the keys in the connection lung_s3 (or kaggle), then clear this task",
    ),
    137: (
        "killed (SIGKILL), most often by the kernel for lack of memory",
        f"Give the machine more memory, or {LESS_MEMORY}",
    ),
    143: (
        "stopped (SIGTERM) before it had saved its state",
        "It is retried; after the last try, clear this task",
    ),
}
OTHER_MEANING = ("it failed", "Correct what its log names, then clear this task")
NEVER_RETRIED = frozenset({2, 65, 77})
# Bytes: a result has a few KB; a run.json has the settings of its jobs, with the --split-file.
LARGEST_RESULT, LARGEST_RUN = 2**20, 64 * 2**20


@dataclass(frozen=True)
class Ending:
    """How a job ended.

    `exit_code` is 128 + n after signal n; `last_line` is without time and level; `memory_limit` is
    set only where the job exceeded it; `was_stopped` is true where something other than its task
    stopped its container.
    """

    exit_code: int
    last_line: str = ""
    memory_limit: str = ""
    was_stopped: bool = False


def run_job(run: Callable[[dict[str, str]], Ending], result_uri: str) -> dict[str, Any]:
    """Run one job and return its result; raise the exception that its ending calls for.

    `run` takes the secret part of the job's environment and returns when the job has ended.
    """
    secrets = private_environment()
    delete_result(result_uri)
    ending = run(secrets)
    if ending.exit_code:
        raise failure(ending)
    return read_result(result_uri)


def failure(ending: Ending) -> AirflowException:
    """The exception for an exit code other than 0; AirflowFailException is never retried."""
    code = ending.exit_code
    if ending.memory_limit:
        return AirflowException(
            f"The job was killed for memory (exit code {code}): its limit is {ending.memory_limit}."
            f" Raise Memory on the form (its default is LUNG_JOBS_MEMORY), or {LESS_MEMORY}"
        )
    meaning, remedy = MEANINGS.get(code, OTHER_MEANING)
    if ending.was_stopped:
        meaning = "its container was stopped, by `docker stop` or because the engine stopped"
        remedy = "It is retried and resumes from the saved state"
    text = f"The job ended with exit code {code}: {meaning}. {remedy}"
    if ending.last_line:
        text += f"{LAST_LINE}{visible(ending.last_line)}"
    return AirflowFailException(text) if code in NEVER_RETRIED else AirflowException(text)


def private_environment() -> dict[str, str]:
    """The credentials in the environment variables that the jobs read.

    Raises AirflowFailException where the connection to S3 is not defined.
    """
    s3 = connection(S3_CONNECTION)
    if s3 is None:
        raise AirflowFailException(
            f"The connection {S3_CONNECTION!r} is not defined: add it with the type aws, the "
            "access key as login, the secret key as password and, unless it is AWS itself, the "
            'extra {"endpoint_url": "http://HOST:PORT"}'
        )
    kaggle = connection(KAGGLE_CONNECTION)
    variables = {
        "AWS_ACCESS_KEY_ID": s3.login,
        "AWS_SECRET_ACCESS_KEY": s3.password,
        "AWS_ENDPOINT_URL": s3.extra_dejson.get("endpoint_url"),
        "AWS_DEFAULT_REGION": s3.extra_dejson.get("region_name", DEFAULT_REGION),
        "KAGGLE_API_TOKEN": kaggle.password if kaggle else None,
    }
    return {name: value for name, value in variables.items() if value}


def connection(name: str) -> Connection | None:
    """Airflow's connection `name`; None where it is not defined."""
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def delete_result(uri: str) -> None:
    """Delete the result of an earlier run of the same name, lest it pass for this run's."""
    from botocore.exceptions import BotoCoreError, ClientError

    # The job meets the same error of S3 a moment later and reports it with the remedy.
    with suppress(BotoCoreError, ClientError):
        s3_client().delete_object(**bucket_and_key(uri))


def read_result(uri: str, limit: int = LARGEST_RESULT) -> dict[str, Any]:
    """The job's result of at most `limit` bytes.

    Raises AirflowException where S3 has none or does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with s3_client().get_object(**bucket_and_key(uri))["Body"] as body:
            data = body.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"it has over {limit} bytes, no job writes that many")
        result = json.loads(data)
    except (BotoCoreError, ClientError, RecursionError, ValueError) as error:
        raise AirflowException(
            f"The job ended well but its result cannot be read from {uri} ({visible(str(error))}): "
            "check that the image is of the same version as these DAGs, and that the job writes "
            "this bucket"
        ) from error
    if not isinstance(result, dict):
        raise AirflowException(f"The result at {uri} is not a JSON object: {result!r:.100}")
    return result


def bucket_and_key(uri: str) -> dict[str, str]:
    """s3://BUCKET/KEY as the arguments of an S3 client's calls."""
    parts = urlsplit(uri)
    return {"Bucket": parts.netloc, "Key": parts.path.lstrip("/")}


def s3_client(*, connect_seconds: float = 5, read_seconds: float = 30, attempts: int = 5) -> Any:
    """An S3 client with the credentials of the connection `lung_s3`."""
    # Imported here: boto3 takes half a second, which every parse of a DAG would pay.
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    config = Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": "path"},
    )
    return S3Hook(aws_conn_id=S3_CONNECTION, config=config).get_conn()
