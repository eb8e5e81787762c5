"""The contract between a task and its job, the same on every backend.

The task gives the job its credentials, from Airflow's connections and only at run time, and
RESULT_URI. The job writes its result there as JSON and ends with an exit code of `jobs/errors.py`;
the result becomes the task's XCom, the exit code decides whether the task is tried again.

Connections: `lung_s3` (type aws: login, password, extra {"endpoint_url": ..., "region_name": ...}),
required; `kaggle` (password: an API token), only for kaggle:// sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

S3_CONNECTION = "lung_s3"
KAGGLE_CONNECTION = "kaggle"
DEFAULT_REGION = "us-east-1"
# The supervisor kills a task's process 5 s after TERM, so its job gets less than that.
STOP_GRACE_SECONDS = 3
STOPPED = "The task was stopped from outside, and its job with it"
# The job watches its standard input, on which the task's process beats
# (`jobs/runtime/lifeline.py`).
LIFELINE = {"LUNG_LIFELINE": "stdin"}

LESS_MEMORY = "lower the batch size, the image size or the network"
# What an exit code means, and what to do about it.
MEANINGS = {
    2: (
        "wrong arguments or configuration, or an absent bucket or source",
        "Correct what it names in the run's form or in the deployment's settings, and trigger anew",
    ),
    65: ("bad data", "Mend or take out the films that it names, then clear this task"),
    69: (
        "a service is unavailable",
        "It is tried again; if that does not help, see that S3 and the source of the films answer",
    ),
    75: (
        "interrupted, its state saved",
        "The next try goes on from there; after the last one, clear this task",
    ),
    77: (
        "access refused",
        "Renew the keys in the connection lung_s3 (or kaggle), then clear this task",
    ),
    137: (
        "killed (SIGKILL), most often by the kernel for want of memory",
        f"Give the machine more memory, or {LESS_MEMORY}",
    ),
    143: (
        "stopped (SIGTERM) before it had saved its state",
        "It is tried again; after the last try, clear this task",
    ),
}
OTHER_MEANING = ("it failed", "Its log says why; mend that, then clear this task")
NEVER_RETRIED = frozenset({2, 65, 77})


@dataclass(frozen=True)
class Ending:
    """How a job ended: 128 + n after signal n.

    `memory_limit` only where it was exceeded; `was_told_to_stop` where its container was, by
    somebody else than its task.
    """

    exit_code: int
    last_line: str = ""
    memory_limit: str = ""
    was_told_to_stop: bool = False


def carry_out(run: Callable[[dict[str, str]], Ending], result_uri: str) -> dict[str, Any]:
    """Run one job and return its result, or raise what Airflow should do about its ending.

    `run` takes the environment that nobody may see and returns when the job has ended.
    """
    secrets = private_environment()
    forget_result(result_uri)
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
    if ending.was_told_to_stop:
        meaning = "its container was stopped, by `docker stop` or because the engine stopped"
        remedy = "It is tried again and goes on from what it saved"
    text = f"The job ended with exit code {code}: {meaning}. {remedy}"
    # The logger's time and level are in the log already.
    said = re.sub(r"^[\d-]+ [\d:,]+ [A-Z]+ ", "", ending.last_line)
    if said:
        text += f". It said: {said}"
    return AirflowFailException(text) if code in NEVER_RETRIED else AirflowException(text)


def private_environment() -> dict[str, str]:
    """The credentials as the variables that the jobs read.

    Raises AirflowFailException where the connection to S3 is not defined.
    """
    store = connection(S3_CONNECTION)
    if store is None:
        raise AirflowFailException(
            f"The connection {S3_CONNECTION!r} is not defined: add it with the type aws, the "
            "access key as login, the secret key as password and, unless it is AWS itself, the "
            'extra {"endpoint_url": "http://HOST:PORT"}'
        )
    kaggle = connection(KAGGLE_CONNECTION)
    variables = {
        "AWS_ACCESS_KEY_ID": store.login,
        "AWS_SECRET_ACCESS_KEY": store.password,
        "AWS_ENDPOINT_URL": store.extra_dejson.get("endpoint_url"),
        "AWS_DEFAULT_REGION": store.extra_dejson.get("region_name", DEFAULT_REGION),
        "KAGGLE_API_TOKEN": kaggle.password if kaggle else None,
    }
    return {name: value for name, value in variables.items() if value}


def connection(name: str) -> Connection | None:
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def forget_result(uri: str) -> None:
    """Remove what an earlier run of the same name left, so that it is not taken for this one's."""
    from botocore.exceptions import BotoCoreError, ClientError

    # The job meets the same S3 a moment later and says what is wrong with the better words.
    with suppress(BotoCoreError, ClientError):
        client, place = client_and_place(uri)
        client.delete_object(**place)


def read_result(uri: str) -> dict[str, Any]:
    """The job's result; AirflowException where there is none or S3 does not give it."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client, place = client_and_place(uri)
        result = json.loads(client.get_object(**place)["Body"].read())
    except (BotoCoreError, ClientError, ValueError) as error:
        raise AirflowException(
            f"The job ended well but its result cannot be read from {uri} ({error}): is the image "
            "the one that these DAGs were made for, and is the bucket the one that the job writes?"
        ) from error
    if not isinstance(result, dict):
        raise AirflowException(f"The result at {uri} is not a JSON object: {result!r:.100}")
    return result


def client_and_place(uri: str) -> tuple[Any, dict[str, str]]:
    """An S3 client of the connection, and the URI as the arguments that its calls take."""
    return s3_client(), place_of(uri)


def place_of(uri: str) -> dict[str, str]:
    parts = urlsplit(uri)
    return {"Bucket": parts.netloc, "Key": parts.path.lstrip("/")}


def s3_client(*, connect_seconds: float = 5, read_seconds: float = 30, attempts: int = 5) -> Any:
    """An S3 client of the connection."""
    # Here and not above: boto3 takes half a second, and every parse of a DAG would pay for it.
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    config = Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": "path"},
    )
    return S3Hook(aws_conn_id=S3_CONNECTION, config=config).get_conn()
