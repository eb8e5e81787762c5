"""One job as one task, on the backend that the deployment chose.

Settings are environment variables of Airflow's processes, read when a DAG is parsed:

    LUNG_BACKEND         docker (default) or process
    LUNG_BUCKET_URI      where the jobs write, s3://BUCKET/PREFIX
    LUNG_SOURCE          the films of scheduled runs, in place of the form's default
    LUNG_SCHEDULE        cron or preset, @weekly by default; "never" leaves only runs by hand
    LUNG_INBOX           where new films arrive for the daily masks, s3://BUCKET/PREFIX
    LUNG_MASKS_SCHEDULE  the same for the daily masks, @daily by default; a new champion has its
                         masks made at once, also with "never"
    LUNG_POOL            the pool of train, gpu by default: one slot, one training at a time
    LUNG_GPUS            the form's default for GPUs
    LUNG_JOBS_IMAGE      docker: the jobs' image
    LUNG_DOCKER_NETWORK  docker: the network from which S3 is reached
    LUNG_JOBS_MEMORY     docker: the form's default for the memory limit of a job's container
    LUNG_SHM_SIZE        docker: the form's default for its /dev/shm, through which processes that
                         train together talk
    LUNG_JOBS_HOME       process: the project's folder
    LUNG_JOBS_PYTHON     process: a Python with the jobs' packages
    DOCKER_HOST          docker: the engine, where it is not this machine's; DOCKER_TLS_VERIFY=1
                         and DOCKER_CERT_PATH, the folder of ca.pem, cert.pem and key.pem, for TLS
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context, Param, XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException

from lung.notices import tell_of_failure

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1]
DEFAULTS = {
    "LUNG_BACKEND": "docker",
    "LUNG_BUCKET_URI": "s3://lung/pipeline",
    "LUNG_SOURCE": "",
    "LUNG_SCHEDULE": "@weekly",
    "LUNG_INBOX": "s3://lung/inbox",
    "LUNG_MASKS_SCHEDULE": "@daily",
    "LUNG_POOL": "gpu",
    "LUNG_GPUS": "0",
    "LUNG_JOBS_IMAGE": "lung-jobs:local",
    "LUNG_DOCKER_NETWORK": "bridge",
    "LUNG_JOBS_MEMORY": "8g",
    "LUNG_SHM_SIZE": "1g",
    "LUNG_JOBS_HOME": str(HOME),
    "LUNG_JOBS_PYTHON": str(HOME / ".venv" / "bin" / "python"),
}
FORM = json.loads((HERE / "params.json").read_text())
RUN_ID_LENGTH = 128
SIZE = "^[1-9][0-9]*[kmg]$"

# The DAG's macro makes a run's name fit for a folder, here and nowhere else.
RUN_ID = "{{ safe_run_id(run_id) }}"
RESULT = "results/{{ ti.task_id }}-{{ ti.map_index }}-{{ ti.try_number }}.json"


def setting(name: str) -> str:
    return os.environ.get(name) or DEFAULTS[name]


def safe_run_id(run_id: str) -> str:
    """Letters, digits, ".", "_" and "-" only, at most 128; a longer name is cut and hashed."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", run_id).lstrip("._-") or "run"
    if len(safe) <= RUN_ID_LENGTH:
        return safe
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    return f"{safe[: RUN_ID_LENGTH - 9]}-{digest}"


def refuse_unknown_params(context: Context) -> None:
    """Every task's `pre_execute`: by REST a run can be given what is on no form, as a typo is."""
    known = context["dag"].params
    if unknown := sorted(set(context["dag_run"].conf or {}) - set(known)):
        raise AirflowFailException(
            f"The run was given {', '.join(unknown)}, which {context['dag'].dag_id} does not know: "
            f"trigger it anew with any of {', '.join(known)}"
        )


# What both DAGs and all their tasks are given.
POLICY: dict[str, Any] = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 1,
    "user_defined_macros": {"safe_run_id": safe_run_id},
    "default_args": {
        "owner": "lung",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=20),
        "execution_timeout": timedelta(hours=6),
        # Airflow calls it after the last try alone; on_retry_callback is for the others.
        "on_failure_callback": tell_of_failure,
        "pre_execute": refuse_unknown_params,
    },
}


def schedule(name: str) -> str | None:
    """The setting `name` as a cron or preset; None for never."""
    return None if setting(name) == "never" else setting(name)


def params(*jobs: str, **others: Param) -> dict[str, Param]:
    """The form's fields: the jobs' own options and `others`, those without a section first."""
    fields = {name: Param(**field) for job in jobs for name, field in FORM[job].items()}
    for name, replacement in (("source", "LUNG_SOURCE"), ("inbox", "LUNG_INBOX")):
        if name in fields and setting(replacement):
            fields[name].value = setting(replacement)
    ordered = sorted((fields | others).items(), key=lambda item: "section" in item[1].schema)
    return dict(ordered)


def container_params() -> dict[str, Param]:
    """What the form says of the containers of all jobs; a process has what the machine has."""
    return {
        "memory": Param(
            setting("LUNG_JOBS_MEMORY"),
            type="string",
            pattern=SIZE,
            title="Memory",
            description="Memory limit of each job's container, as in 8g; a job above it is killed",
            section="Advanced",
        ),
        "shm_size": Param(
            setting("LUNG_SHM_SIZE"),
            type="string",
            pattern=SIZE,
            title="Shared memory",
            description="/dev/shm of each job's container, through which GPUs train together",
            section="Advanced",
        ),
    }


def flags(job: str) -> list[str]:
    """The job's options that stand on the form, as `--size {{ params.size }}`."""
    return [
        text
        for name, field in FORM[job].items()
        for text in ("--" + name.replace("_", "-"), f"{{{{ {value_of(name, field)} }}}}")
    ]


def value_of(name: str, field: dict[str, Any]) -> str:
    # The form sends null for a text that is left empty.
    return f"params.{name}" + (" or ''" if field["default"] == "" else "")


def manifest_of(job: str, *, mapped: bool = False) -> str:
    """The URI of the manifest that the job wrote in this run; all shards of a mapped one agree."""
    first = ", map_indexes=0" if mapped else ""
    return f"{{{{ ti.xcom_pull('{job}'{first})['manifest'] }}}}"


def stage(
    job: str, arguments: list[str], *, shards: XComArg | None = None, **options: Any
) -> BaseOperator | MappedOperator:
    """The task that runs `python -m jobs <job> <arguments>`; one for each of `shards` if given."""
    out = setting("LUNG_BUCKET_URI")
    operator, where = backend(setting("LUNG_BACKEND"))
    described: dict[str, Any] = {
        "task_id": job,
        "command": [
            *("python", "-m", "jobs", job),
            *arguments,
            *("--out", out, "--run-id", RUN_ID),
        ],
        "environment": {
            "RESULT_URI": f"{out}/runs/{RUN_ID}/{RESULT}",
            "PYTHONUNBUFFERED": "1",
        },
        **where,
        **options,
    }
    if shards is None:
        return operator(**described)
    return operator.partial(map_index_template="{{ task.shard }}", **described).expand(shard=shards)


def backend(name: str) -> tuple[type[BaseOperator], dict[str, Any]]:
    """The operator of a backend and what it needs to know; a new backend is one more branch."""
    if name == "docker":
        from lung.container_operator import ContainerOperator

        return ContainerOperator, {
            "image": setting("LUNG_JOBS_IMAGE"),
            "network_mode": setting("LUNG_DOCKER_NETWORK"),
            "mem_limit": "{{ params.memory }}",
            "shm_size": "{{ params.shm_size }}",
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
    """The operator's paths to a remote engine's certificates, where the docker client has them."""
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return {}
    folder = os.environ.get("DOCKER_CERT_PATH") or str(Path.home() / ".docker")
    files = {"tls_ca_cert": "ca", "tls_client_cert": "cert", "tls_client_key": "key"}
    return {option: f"{folder}/{name}.pem" for option, name in files.items()}
