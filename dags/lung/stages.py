"""One job as one task, on the backend that the deployment chose.

Settings are environment variables of Airflow's processes, read when a DAG is parsed:

    LUNG_BACKEND         docker (default) or process
    LUNG_BUCKET_URI      where the jobs write, s3://BUCKET/PREFIX
    LUNG_SOURCE          the films of scheduled runs, in place of the form's default
    LUNG_SCHEDULE        cron or preset, @weekly by default; "never" leaves only runs by hand
    LUNG_JOBS_IMAGE      docker: the jobs' image
    LUNG_DOCKER_NETWORK  docker: the network from which S3 is reached
    LUNG_JOBS_MEMORY     docker: memory limit of a job's container
    LUNG_SHM_SIZE        docker: its /dev/shm, through which processes that train together talk
    LUNG_JOBS_HOME       process: the project's folder
    LUNG_JOBS_PYTHON     process: a Python with the jobs' packages
    DOCKER_HOST          docker: the engine, where it is not this machine's
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Param, XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1]
DEFAULTS = {
    "LUNG_BACKEND": "docker",
    "LUNG_BUCKET_URI": "s3://lung/pipeline",
    "LUNG_SOURCE": "",
    "LUNG_SCHEDULE": "@weekly",
    "LUNG_JOBS_IMAGE": "lung-jobs:local",
    "LUNG_DOCKER_NETWORK": "bridge",
    "LUNG_JOBS_MEMORY": "8g",
    "LUNG_SHM_SIZE": "1g",
    "LUNG_JOBS_HOME": str(HOME),
    "LUNG_JOBS_PYTHON": str(HOME / ".venv" / "bin" / "python"),
}
FORM = json.loads((HERE / "params.json").read_text())
RUN_ID_LENGTH = 128

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


def params() -> dict[str, Param]:
    """The form's fields, from the jobs' own options."""
    fields = {name: Param(**field) for name, field in FORM["params"].items()}
    if source := setting("LUNG_SOURCE"):
        fields["source"].value = source
    return fields


def flags(job: str) -> list[str]:
    """The job's options that stand on the form, as `--size {{ params.size }}`."""
    return [
        text
        for name in FORM["jobs"][job]
        for text in ("--" + name.replace("_", "-"), f"{{{{ {value_of(name)} }}}}")
    ]


def value_of(name: str) -> str:
    # The form sends null for a text that is left empty.
    return f"params.{name}" + (" or ''" if FORM["params"][name]["default"] == "" else "")


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
            "mem_limit": setting("LUNG_JOBS_MEMORY"),
            "shm_size": setting("LUNG_SHM_SIZE"),
        }
    if name == "process":
        from lung.process_operator import ProcessOperator

        return ProcessOperator, {
            "python": setting("LUNG_JOBS_PYTHON"),
            "home": setting("LUNG_JOBS_HOME"),
        }
    raise ValueError(f"LUNG_BACKEND is {name!r}: it can be docker or process")
