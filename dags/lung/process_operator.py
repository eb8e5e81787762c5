"""Runs a job as a process of this machine: the backend for a laptop without Docker.

Every process of a job has the RESULT_URI of its try in its environment, as every container has
labels. All of them are found by it, also those in a session of their own. The job's standard input
is a pipe, its lifeline, which closes when the task's process dies.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import psutil
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from lung.contract import LIFELINE, STOP_GRACE_SECONDS, STOPPED, Ending, run_job
from lung.job_log import JobLog
from lung.process_gpus import VISIBLE, visible_gpus
from lung.supervision import supervised

# Prefixes of variables that a job does not inherit: Airflow's secrets, and credentials other than
# those of the task's connections.
WITHHELD = ("AIRFLOW", "_AIRFLOW", "__AIRFLOW", "AWS_", "KAGGLE_")
# Inherited all the same.
PASSED_ON = ("AWS_CA_BUNDLE",)
POLL_SECONDS = 0.05


class ProcessOperator(BaseOperator):
    """Runs `command` with the interpreter `python` in the folder `home`; returns the job's result.

    `environment` holds RESULT_URI; `shard` is for the command's template. `gpus` is the job's share
    of the machine's GPUs, as `gpu_share` says; the job sees no others.
    """

    template_fields = ("command", "environment", "gpus", "shard")

    def __init__(
        self,
        *,
        command: list[str],
        environment: dict[str, str],
        python: str,
        home: str,
        gpus: int | str = 0,
        shard: str = "1/1",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.environment = environment
        self.python = python
        self.home = home
        self.gpus = gpus
        self.shard = shard
        self._stop_reason = ""

    def execute(self, context: Context) -> dict[str, Any]:
        # The prefix covers all tries: it ends what an earlier one left.
        end_processes(self._result_uri.removesuffix(f"-{context['ti'].try_number}.json") + "-")
        return run_job(self._run, self.command, self._result_uri)

    @property
    def _result_uri(self) -> str:
        return self.environment["RESULT_URI"]

    def _run(self, secrets: dict[str, str]) -> Ending:
        with visible_gpus(str(self.gpus), self.home, gpus_of_jobs) as gpus:
            process = self._start(secrets | gpus)
        # Ranks that outlive their launcher would keep the pipe open, and this task running.
        threading.Thread(target=self._end_after, args=[process], daemon=True).start()
        job_log = JobLog(self.log)
        lifeline = cast(IO[str], process.stdin)
        try:
            if self._stop_reason:  # `_stop` ran before the process existed
                end_processes(self._result_uri)
            with supervised(partial(send_heartbeat, lifeline.fileno()), self._stop):
                copy_output(process, job_log)
                code = process.wait()
        finally:
            end_processes(self._result_uri)
            copy_output(process, job_log)
            cast(IO[str], process.stdout).close()
            lifeline.close()
        if self._stop_reason:
            raise AirflowException(self._stop_reason)
        return Ending(code if code >= 0 else 128 - code, job_log.last_line)

    def _start(self, variables: dict[str, str]) -> subprocess.Popen[str]:
        if not Path(self.python).exists():
            raise AirflowFailException(
                f"There is no {self.python}: run `make venv` in {self.home}, or set "
                "LUNG_JOBS_PYTHON to a Python that has the jobs' packages"
            )
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in PASSED_ON or not name.startswith(WITHHELD)
        }
        return subprocess.Popen(
            [self.python, *self.command[1:]],
            cwd=self.home,
            env=inherited | self.environment | variables | LIFELINE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="backslashreplace",
        )

    def _end_after(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        end_processes(self._result_uri)

    def on_kill(self) -> None:
        self._stop(STOPPED)

    def _stop(self, reason: str) -> None:
        self._stop_reason = reason
        end_processes(self._result_uri)


def copy_output(process: subprocess.Popen[str], job_log: JobLog) -> None:
    """Write the job's output to its log, each line when it is printed, until its end."""
    for line in cast(IO[str], process.stdout):
        job_log.write(line)


def send_heartbeat(lifeline: int) -> None:
    """Write to the job's lifeline, a file descriptor; do nothing where the job has ended."""
    with suppress(OSError):
        os.write(lifeline, b"\n")


def end_processes(result_prefix: str) -> None:
    """End all processes whose RESULT_URI starts with the prefix.

    SIGTERM goes to the topmost process of each family; after the grace, SIGKILL to all left.
    """
    family = list(processes(result_prefix))
    pids = {process.pid for process in family}
    for process in family:
        with suppress(psutil.Error):
            if process.ppid() not in pids:
                process.terminate()
    deadline = time.monotonic() + STOP_GRACE_SECONDS
    while (left := list(processes(result_prefix))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for process in left:
        with suppress(psutil.Error):
            process.kill()


def processes(result_prefix: str) -> Iterator[psutil.Process]:
    """The processes of this machine whose RESULT_URI starts with the prefix; no zombies."""
    for process in psutil.process_iter():
        # A zombie has no environment to read.
        with suppress(psutil.Error, OSError):
            if process.environ().get("RESULT_URI", "").startswith(result_prefix):
                yield process


def gpus_of_jobs() -> Iterator[str]:
    """CUDA_VISIBLE_DEVICES of each process of a job on this machine."""
    for process in processes("s3://"):
        with suppress(psutil.Error, OSError):
            yield process.environ().get(VISIBLE, "")
