"""The contract between a task and its job, the same on every backend.

At run time the task passes the job its credentials, from Airflow's connections, and RESULT_URI. The
job writes its result there as JSON and ends with an exit code of `jobs/errors.py`. The result
becomes the task's XCom; the exit code decides whether the task is retried.

Connections: `lung_s3` (type aws: login, password, extra {"endpoint_url": ..., "region_name": ...}),
required; `kaggle` (password: an API token), only for a download of kaggle:// sources, the only job
that gets it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
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
MORE_MEMORY = (
    "Trigger a new run with more Memory on the form, or raise its default, LUNG_JOBS_MEMORY, and "
    "clear this task"
)
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


def run_job(
    run: Callable[[dict[str, str]], Ending], command: Sequence[str], result_uri: str
) -> dict[str, Any]:
    """Run one job and return its result; raise the exception that its ending calls for.

    `run` takes the secret part of the job's environment and returns when the job has ended;
    `command` is the job's command line.
    """
    secrets = private_environment(command)
    delete_result(result_uri)
    ending = run(secrets)
    if not ending.exit_code:
        return read_result(result_uri)
    earlier_limit = ""
    if ending.memory_limit:
        earlier_limit = limit_of_earlier_kill(result_uri)
        record_kill(result_uri, ending.memory_limit)
    raise failure(ending, earlier_limit=earlier_limit)


def failure(ending: Ending, *, earlier_limit: str = "") -> AirflowException:
    """The exception for an exit code other than 0; AirflowFailException is never retried.

    `earlier_limit` is the memory limit that the try before this one exceeded, "" where it did not.
    """
    code = ending.exit_code
    if ending.memory_limit and ending.memory_limit == earlier_limit:
        return AirflowFailException(
            f"The job was killed for memory twice at the same limit, {ending.memory_limit}, and is "
            f"not tried again (exit code {code}): {MORE_MEMORY}, or {LESS_MEMORY}"
        )
    if ending.memory_limit:
        return AirflowException(
            f"The job was killed for memory (exit code {code}): its limit is {ending.memory_limit}."
            f" A second kill at this limit is final. {MORE_MEMORY}, or {LESS_MEMORY}"
        )
    meaning, remedy = MEANINGS.get(code, OTHER_MEANING)
    if ending.was_stopped:
        meaning = "its container was stopped, by `docker stop` or because the engine stopped"
        remedy = "It is retried and resumes from the saved state"
    text = f"The job ended with exit code {code}: {meaning}. {remedy}"
    if ending.last_line:
        text += f"{LAST_LINE}{visible(ending.last_line)}"
    return AirflowFailException(text) if code in NEVER_RETRIED else AirflowException(text)


def private_environment(command: Sequence[str]) -> dict[str, str]:
    """The credentials in the environment variables that the job of this command line reads.

    Raises AirflowFailException where the connection to S3 is not defined.
    """
    s3 = connection(S3_CONNECTION)
    if s3 is None:
        raise AirflowFailException(
            f"The connection {S3_CONNECTION!r} is not defined: add it with the type aws, the "
            "access key as login, the secret key as password and, unless it is AWS itself, the "
            'extra {"endpoint_url": "http://HOST:PORT"}'
        )
    kaggle = connection(KAGGLE_CONNECTION) if reads_kaggle(command) else None
    variables = {
        "AWS_ACCESS_KEY_ID": s3.login,
        "AWS_SECRET_ACCESS_KEY": s3.password,
        "AWS_ENDPOINT_URL": s3.extra_dejson.get("endpoint_url"),
        "AWS_DEFAULT_REGION": s3.extra_dejson.get("region_name", DEFAULT_REGION),
        "KAGGLE_API_TOKEN": kaggle.password if kaggle else None,
    }
    return {name: value for name, value in variables.items() if value}


def reads_kaggle(command: Sequence[str]) -> bool:
    """Whether a job reads a kaggle:// source. Only download has --source; + joins several."""
    words = list(command)
    source = words[words.index("--source") + 1] if "--source" in words else ""
    return re.search(r"(^|\+)kaggle://", source) is not None


def connection(name: str) -> Connection | None:
    """Airflow's connection `name`; None where it is not defined."""
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def delete_result(uri: str) -> None:
    """Delete what an earlier run of the same name left of this try, lest it pass for this run's."""
    from botocore.exceptions import BotoCoreError, ClientError

    # The job meets the same error of S3 a moment later and reports it with the remedy.
    with suppress(BotoCoreError, ClientError):
        client = s3_client()
        for left in (uri, uri_of_kill(uri)):
            client.delete_object(**bucket_and_key(left))


def uri_of_kill(result_uri: str, *, tries_ago: int = 0) -> str:
    """Where a kill for memory is recorded: not below results/, every object of which is a result.

    .../results/train--1-2.json, one try ago: .../killed/train--1-1.json
    """
    folder, _, name = result_uri.rpartition("/")
    task, _, number = name.removesuffix(".json").rpartition("-")
    return f"{folder.rpartition('/')[0]}/killed/{task}-{int(number) - tries_ago}.json"


def record_kill(result_uri: str, limit: str) -> None:
    """Record that this try exceeded its memory limit; without S3 the next try is one more."""
    from botocore.exceptions import BotoCoreError, ClientError

    with suppress(BotoCoreError, ClientError):
        body = json.dumps({"memory_limit": limit}).encode()
        s3_client().put_object(**bucket_and_key(uri_of_kill(result_uri)), Body=body)


def limit_of_earlier_kill(result_uri: str) -> str:
    """The memory limit that the try before this one exceeded; "" where it did not."""
    from botocore.exceptions import BotoCoreError, ClientError

    place = bucket_and_key(uri_of_kill(result_uri, tries_ago=1))
    with suppress(BotoCoreError, ClientError, ValueError, KeyError, TypeError, RecursionError):
        body = s3_client().get_object(**place)["Body"].read(LARGEST_RESULT)
        return str(json.loads(body)["memory_limit"])
    return ""


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
