"""Builds the Airflow task of a job, on the backend that the deployment chose."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from typing import Any

from airflow.sdk import BaseOperator, Context, XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException

from lung.form import form_arguments
from lung.notices import record_error, report_failure
from lung.run_folder import safe_run_id
from lung.settings import cpu_limit, setting

# Templates. The run's id becomes a folder's name here only.
RUN_ID = "{{ safe_run_id(run_id) }}"
# One object per try: a late result of an earlier try does not replace the next one's.
RESULT = "results/{{ ti.task_id }}-{{ ti.map_index }}-{{ ti.try_number }}.json"


def refuse_unknown_params(context: Context) -> None:
    """Fail a run with params that are not on the form.

    Airflow's REST API accepts any name, also a misspelt one.
    """
    dag_id, accepted = context["dag"].dag_id, context["dag"].params
    if unknown := sorted(set(context["dag_run"].conf or {}) - set(accepted)):
        raise AirflowFailException(
            f"{dag_id} has no param {', '.join(unknown)}: trigger a new run with params among "
            f"{', '.join(accepted)}"
        )


def refuse_another_bucket(context: Context) -> None:
    """Fail where the run began below another prefix than `--out`.

    Every worker has its own LUNG_BUCKET_URI, where no file gives all of them the same.
    """
    out = setting("LUNG_BUCKET_URI").rstrip("/")
    for word in getattr(context["task"], "command", ()):
        if word.endswith("/manifest.json") and not word.startswith(f"{out}/"):
            # As in s3://BUCKET/PREFIX/raw/<fingerprint>/manifest.json.
            raise AirflowFailException(
                f"This run began below {word.rsplit('/', 3)[0]}, but LUNG_BUCKET_URI on "
                f"{gethostname()} is {out}: set it in lung_settings.toml, the same on every "
                "machine of Airflow, then trigger a new run"
            )


def check_run(context: Context) -> None:
    """Every task's `pre_execute`."""
    refuse_unknown_params(context)
    refuse_another_bucket(context)


# Arguments of both DAGs; default_args are those of their tasks.
POLICY: dict[str, Any] = {
    # No start_date: with one in the past, unpausing would run the last tick at once.
    "catchup": False,
    # Parallel runs would compete for the same fingerprints and for the champion.
    "max_active_runs": 1,
    "user_defined_macros": {"safe_run_id": safe_run_id},
    "default_args": {
        "owner": "lung",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=20),
        "execution_timeout": timedelta(hours=6),
        # Airflow calls these after the last try only, and on_retry_callback after the earlier ones.
        "on_failure_callback": [record_error, report_failure],
        "on_retry_callback": record_error,
        "pre_execute": check_run,
    },
}


def manifest_of(job: str, *, mapped: bool = False) -> str:
    """The template of the URI of the manifest that the job wrote in this run.

    All shards of a mapped task return the same URI, so the first one's is read.
    """
    first = ", map_indexes=0" if mapped else ""
    return f"{{{{ ti.xcom_pull('{job}'{first})['manifest'] }}}}"


def job_task(
    job: str,
    arguments: Mapping[str, str] | None = None,
    *,
    shards: XComArg | None = None,
    **options: Any,
) -> BaseOperator | MappedOperator:
    """The task that runs `python -m jobs <job>`, mapped over `shards` if given.

    The job gets `arguments` and its options on the form; `options` are the operator's.
    """
    out = setting("LUNG_BUCKET_URI")
    values = {**(arguments or {}), **form_arguments(job), "out": out, "run_id": RUN_ID}
    operator, backend_options = backend(setting("LUNG_BACKEND"))
    task_options: dict[str, Any] = {
        "task_id": job,
        "command": command(job, values),
        "environment": {
            "RESULT_URI": f"{out}/runs/{RUN_ID}/{RESULT}",
            # Each line reaches the task's log when it is printed.
            "PYTHONUNBUFFERED": "1",
        },
        **backend_options,
        **options,
    }
    if shards is None:
        return operator(**task_options)
    mapped = operator.partial(map_index_template="{{ task.shard }}", **task_options)
    return mapped.expand(shard=shards)


def command(job: str, values: Mapping[str, str]) -> list[str]:
    """The job's command line: {"run_id": "x"} becomes --run-id x."""
    words = ["python", "-m", "jobs", job]
    for name, value in values.items():
        words += ["--" + name.replace("_", "-"), value]
    return words


def backend(name: str) -> tuple[type[BaseOperator], dict[str, Any]]:
    """The operator of a backend and its options from the settings.

    A new backend is one more branch. Raises ValueError for an unknown name.
    """
    if name == "docker":
        from lung.container_operator import ContainerOperator

        return ContainerOperator, {
            "image": setting("LUNG_JOBS_IMAGE"),
            "network_mode": setting("LUNG_DOCKER_NETWORK"),
            "mem_limit": "{{ params.memory }}",
            "shm_size": "{{ params.shm_size }}",
            "cpu_limit": cpu_limit(),
            **tls(),
        }
    if name == "process":
        from lung.process_operator import ProcessOperator

        return ProcessOperator, {
            "python": setting("LUNG_JOBS_PYTHON"),
            "home": setting("LUNG_JOBS_HOME"),
        }
    raise ValueError(f"LUNG_BACKEND is {name!r}: it can be docker or process")


def tls() -> dict[str, str]:
    """DockerOperator's paths to the certificates of an engine over TLS; {} without TLS.

    The variables and the default folder are those of the docker client.
    """
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return {}
    folder = os.environ.get("DOCKER_CERT_PATH") or str(Path.home() / ".docker")
    files = {"tls_ca_cert": "ca", "tls_client_cert": "cert", "tls_client_key": "key"}
    return {option: f"{folder}/{name}.pem" for option, name in files.items()}
