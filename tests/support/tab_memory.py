"""The memory that Airflow's tab takes of a run's files, and a task of its result.

usage: .venv-airflow/bin/python -m tests.support.tab_memory URI_OF_TRAINED_FOLDER URI_OF_RESULT

Prints the peak of resident memory in MiB, and the errors.
"""

from __future__ import annotations

import resource
import sys

from airflow.sdk.exceptions import AirflowException

from lung.contract import read_result
from lung.run_files import RunFiles, UnreadableError
from lung.run_report_page import Run, progress


def main(folder: str, result: str) -> None:
    errors = []
    try:
        files = RunFiles("run")
        run = Run.of("run", "running", [("train", "running")])
        progress(run, files.history(folder), 4, curves=files.curves(folder))
    except UnreadableError as error:
        errors.append(error)
    try:
        read_result(result)
    except AirflowException as error:
        errors.append(error)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, *errors)


if __name__ == "__main__":
    main(*sys.argv[1:])
