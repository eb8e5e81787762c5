"""Runs a job as a process of this machine: the backend for a laptop without Docker.

Every process of a job carries the RESULT_URI of its try in its environment, as every container
carries labels: so all of them are found, also those that moved to a session of their own. A job
hangs on a lifeline too, the pipe to its standard input, which closes when the task's process dies.
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

from lung.contract import LIFELINE, STOP_GRACE_SECONDS, STOPPED, Ending, carry_out
from lung.supervision import supervised

# Airflow's own secrets and any credentials that are not of this task's connections stay here.
WITHHELD = ("AIRFLOW", "_AIRFLOW", "__AIRFLOW", "AWS_", "KAGGLE_")
KEPT = ("AWS_CA_BUNDLE",)
POLL_SECONDS = 0.05


class ProcessOperator(BaseOperator):
    """Runs `command` with `python` in the folder `home`; returns the job's result.

    `environment` holds RESULT_URI; `shard` is for the command's template. A process finds the
    machine's GPUs by itself, so `gpus` changes nothing here.
    """

    template_fields = ("command", "environment", "shard")

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
        self._stopped = ""  # the reason, once there is one

    def execute(self, context: Context) -> dict[str, Any]:
        end_processes(self._result_uri.removesuffix(f"-{context['ti'].try_number}.json") + "-")
        return carry_out(self._run, self._result_uri)

    @property
    def _result_uri(self) -> str:
        return self.environment["RESULT_URI"]

    def _run(self, secrets: dict[str, str]) -> Ending:
        process = self._start(secrets)
        # Ranks that outlive their launcher would hold the pipe open, and this task with it.
        threading.Thread(target=self._end_with, args=[process], daemon=True).start()
        last_line = ""
        lifeline = cast(IO[str], process.stdin)
        try:
            if self._stopped:  # before there was a process to end
                end_processes(self._result_uri)
            with supervised(partial(beat, lifeline.fileno()), self._stop):
                last_line = self._log_lines(process)
                code = process.wait()
        finally:
            end_processes(self._result_uri)
            self._log_lines(process)
            cast(IO[str], process.stdout).close()
            lifeline.close()
        if self._stopped:
            raise AirflowException(self._stopped)
        return Ending(code if code >= 0 else 128 - code, last_line)

    def _start(self, secrets: dict[str, str]) -> subprocess.Popen[str]:
        if not Path(self.python).exists():
            raise AirflowFailException(
                f"There is no {self.python}: run `make venv` in {self.home}, or name the Python "
                "that has the jobs' packages in LUNG_JOBS_PYTHON"
            )
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT or not name.startswith(WITHHELD)
        }
        return subprocess.Popen(
            [self.python, *self.command[1:]],
            cwd=self.home,
            env=inherited | self.environment | secrets | LIFELINE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="backslashreplace",
        )

    def _log_lines(self, process: subprocess.Popen[str]) -> str:
        """Log each line as it comes until the job's end; returns the last one."""
        last_line = ""
        for line in cast(IO[str], process.stdout):
            if text := line.rstrip():
                self.log.info("%s", text)
                last_line = text
        return last_line

    def _end_with(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        end_processes(self._result_uri)

    def on_kill(self) -> None:
        self._stop(STOPPED)

    def _stop(self, reason: str) -> None:
        self._stopped = reason
        end_processes(self._result_uri)


def beat(lifeline: int) -> None:
    """Tell the job behind the pipe that this process is alive; nothing where it has ended."""
    with suppress(OSError):
        os.write(lifeline, b"\n")


def end_processes(result_prefix: str) -> None:
    """TERM to the first of each family of processes with this RESULT_URI, KILL after the grace."""
    found = list(processes(result_prefix))
    pids = {process.pid for process in found}
    for process in found:
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
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            # A zombie has no environment, so one that waits for its parent is not found again.
            if process.environ().get("RESULT_URI", "").startswith(result_prefix):
                yield process
