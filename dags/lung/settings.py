"""The deployment's settings.

A setting is a line of `lung_settings.toml`, a file beside this package, as in
LUNG_BUCKET_URI = "s3://BUCKET/PREFIX", or else an environment variable of Airflow's processes. The
file wins. Every worker parses the DAG for itself and the tab runs in the api-server: machines whose
environments differ agree by the file, which is copied to each of them with the package. Settings
are read at each parse of a DAG and at each page of the tab:

    LUNG_BACKEND         docker (default) or process
    LUNG_BUCKET_URI      prefix that the jobs write under, s3://BUCKET/PREFIX
    LUNG_SOURCE          source of the films in scheduled runs; replaces the form's default
    LUNG_FORM_DEFAULTS   defaults of other options of the jobs on the form, as JSON by their names:
                         {"size": 256, "epochs": 16}; scheduled runs take them
    LUNG_SCHEDULE        lung_segmentation: cron expression or preset, @weekly by default; never:
                         manual runs only
    LUNG_INBOX           prefix of the new films for lung_masks, s3://BUCKET/PREFIX
    LUNG_MASKS_SCHEDULE  lung_masks: cron expression or preset, @daily by default; never: only a
                         new champion starts it
    LUNG_GPUS            GPUs of the machine that are for these DAGs: a number, or all (default),
                         what the engine offers; 0: the CPU. See lung/gpu_share.py
    LUNG_POOL            pool of the tasks that compute on GPUs, gpu by default; as many slots as
                         LUNG_GPUS, one for all or 0: one training at a time
    LUNG_JOBS_IMAGE      docker: image of the jobs
    LUNG_DOCKER_NETWORK  docker: network of the containers, from which they reach S3
    LUNG_JOBS_MEMORY     docker: default of Memory on the form, the limit of one job's container
    LUNG_JOBS_CPUS       docker: cores that one job's container may use at a time, as in 2 or 1.5;
                         empty (default): all
    LUNG_SHM_SIZE        docker: default of Shared memory on the form, the size of /dev/shm, through
                         which the processes of one training communicate
    LUNG_JOBS_HOME       process: the project's folder
    LUNG_JOBS_PYTHON     process: Python interpreter that has the jobs' packages
    DOCKER_HOST          docker: URL of an engine on another machine; over TLS also
                         DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, the folder of ca.pem, cert.pem
                         and key.pem
"""

from __future__ import annotations

import os
import re
import tomllib
from datetime import timedelta
from pathlib import Path

from airflow.sdk import CronTriggerTimetable
from airflow.sdk.exceptions import AirflowTimetableInvalid

PROJECT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).parent.with_name("lung_settings.toml")
DEFAULTS = {
    "LUNG_BACKEND": "docker",
    "LUNG_BUCKET_URI": "s3://lung/pipeline",
    "LUNG_SOURCE": "",
    "LUNG_FORM_DEFAULTS": "{}",
    "LUNG_SCHEDULE": "@weekly",
    "LUNG_INBOX": "s3://lung/inbox",
    "LUNG_MASKS_SCHEDULE": "@daily",
    "LUNG_POOL": "gpu",
    "LUNG_GPUS": "all",
    "LUNG_JOBS_IMAGE": "lung-jobs:local",
    "LUNG_DOCKER_NETWORK": "bridge",
    "LUNG_JOBS_MEMORY": "8g",
    "LUNG_JOBS_CPUS": "",
    "LUNG_SHM_SIZE": "1g",
    "LUNG_JOBS_HOME": str(PROJECT),
    "LUNG_JOBS_PYTHON": str(PROJECT / ".venv" / "bin" / "python"),
}


def setting(name: str) -> str:
    """The setting `name`: of the file, else of the environment, else its default; "" is unset."""
    return file_settings().get(name) or os.environ.get(name) or DEFAULTS[name]


def file_settings() -> dict[str, str]:
    """The settings in the file; {} without a file.

    Raises ValueError, which names the line or the setting, where the file holds anything else.
    """
    try:
        content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f'{FILE}: {error}; a line is NAME = "value"') from error
    for name, value in content.items():
        if name not in DEFAULTS:
            raise ValueError(f"{FILE}: {name} is no setting; it can be {', '.join(DEFAULTS)}")
        if not isinstance(value, str):
            raise ValueError(f'{FILE}: {name} is {value!r}; a line is NAME = "value"')
    return content


def schedule(name: str) -> CronTriggerTimetable | None:
    """The setting `name` as a timetable whose runs start at its ticks, in UTC; None for never.

    A DAG without a scheduled run waits for the next tick. With `run_immediately=False`, Airflow
    runs the last tick at once within a tenth of the interval, 17 hours of a week. A minute is kept
    for a file that is parsed again between its first tick and the run. Raises ValueError for
    another form.
    """
    text = setting(name)
    if text == "never":
        return None
    clock = CronTriggerTimetable(text, timezone="UTC", run_immediately=timedelta(minutes=1))
    try:
        clock.validate()
    except AirflowTimetableInvalid:
        raise ValueError(
            f"{name} is {text!r}: give a cron expression such as 0 3 * * 1, a preset such as "
            "@weekly, or never"
        ) from None
    return clock


def cpu_limit() -> float:
    """LUNG_JOBS_CPUS in cores, 0 for no limit. Raises ValueError for anything but a number."""
    text = setting("LUNG_JOBS_CPUS") or "0"
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ValueError(f"LUNG_JOBS_CPUS is {text!r}: it can be a number of cores, as in 2 or 1.5")
    return float(text)
