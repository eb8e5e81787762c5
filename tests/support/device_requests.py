"""The GPUs that every task's container asks for, on a stand-in for a machine of 8 GPUs.

usage: .venv-airflow/bin/python -m tests.support.device_requests [LUNG_GPUS, by default 4]
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

from jobs.chain import INPUTS
from tests.support.airflow_tasks import ROOT
from tests.support.gpu_engine import FakeContainer, GpuEngine, node, on_engine, run
from tests.support.parsed_dags import parsed, rendered

GPUS, SHARDS = 8, 4
SEGMENTATION, MASKS = "lung_segmentation", "lung_masks"
# {(run, task): numbers of the GPUs}
Requests = dict[tuple[str, str], list[int]]


def requests(share: str, *steps: Sequence[tuple[str, str, str]]) -> Requests:
    """The GPUs of the tasks (run, DAG, job) of each step, which run at the same time.

    predict is SHARDS tasks. A step ends when its tasks do; nothing is left of them.
    """
    with patch.dict(os.environ, {"LUNG_GPUS": share, "LUNG_BACKEND": "docker"}):
        dags = parsed()
    result: Requests = {}
    for step in steps:
        tasks = [
            (run_id, name, operator)
            for run_id, dag, job in step
            for name, operator in _operators(dags[dag], job)
        ]
        result |= _at_once(tasks)
    return result


def _operators(dag: Any, job: str) -> list[tuple[str, Any]]:
    if job != "predict":
        return [(job, rendered(dag, job))]
    shards = [f"{number}/{SHARDS}" for number in range(1, SHARDS + 1)]
    return [(f"{job} {shard}", rendered(dag, job, shard=shard)) for shard in shards]


def _at_once(tasks: Sequence[tuple[str, str, Any]]) -> Requests:
    """No job ends before all have started."""
    barrier = threading.Barrier(len(tasks))
    result: Requests = {}

    def job(container: FakeContainer) -> None:
        barrier.wait(60)

    engine = GpuEngine(node(GPUS), job=job)

    def execute(run_id: str, name: str, operator: Any) -> None:
        operator.task_id = name  # the label of a shard
        run(on_engine(engine, operator), run_id)

    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(execute, *item) for item in tasks]:
            done.result()
    assert engine.conflicts == [] and engine.left == []
    for container in engine.started:
        name = container.labels["lung.run"], container.labels["lung.task"]
        result[name] = [int(uuid.removeprefix("GPU-")) for uuid in container.devices]
    return result


def one_run(share: str) -> Requests:
    """A run of lung_segmentation; then the daily one of lung_masks."""
    chain = [[("one run", SEGMENTATION, job)] for job in INPUTS]
    return requests(share, *chain, [("one run", MASKS, "inbox")])


def two_runs(share: str) -> Requests:
    """Runs A and B of two Airflows on the engine, in step, each with the half of the GPUs."""
    chain = [[(name, SEGMENTATION, job) for name in ("run A", "run B")] for job in INPUTS]
    return requests(share, *chain, [(name, MASKS, "inbox") for name in ("run A", "run B")])


def print_table(title: str, table: Requests) -> None:
    print(title)
    for (run_id, name), gpus in sorted(table.items(), key=lambda item: (item[0][0], _order(item))):
        print(f"  {run_id:8} {name:12} {' '.join(map(str, gpus)) or '-'}")


def _order(item: tuple[tuple[str, str], list[int]]) -> tuple[int, str]:
    name = item[0][1]
    return [*INPUTS, "inbox"].index(name.split()[0]), name


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "dags"))
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
    given = sys.argv[1] if len(sys.argv) > 1 else "4"
    print_table(f"One run on a machine of {GPUS} GPUs, LUNG_GPUS={given}", one_run(given))
    if given != "all":
        print_table("Two runs of two Airflows on it, in step", two_runs(given))
