"""The DAGs as Airflow parses them, and their tasks with the templates rendered."""

from __future__ import annotations

import copy
from typing import Any

from tests.support.airflow_tasks import ROOT, RUN_ID


def parsed() -> dict[str, Any]:
    """{id: DAG} of the DAG folder, by the settings of this process's environment."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return dict(bag.dags)


def manifest_uri(job: str) -> str:
    return f"s3://lung/pipeline/{job}/fp/manifest.json"


class Instance:
    """A task instance whose upstream tasks have all written a manifest."""

    task_id, map_index, try_number = "task", -1, 2

    def xcom_pull(self, task: str, map_indexes: int | None = None) -> Any:
        result = {"manifest": manifest_uri(task)}
        return [result] if task == "predict" and map_indexes is None else result


def rendered(dag: Any, job: str, *, shard: str = "2/3", **params: Any) -> Any:
    """The job's task with its templates rendered; of a mapped one the task of `shard`."""
    task = dag.get_task(job)
    task = task.unmap({"shard": shard}) if task.is_mapped else copy.copy(task)
    context = {
        "params": dag.params.dump() | params,
        "run_id": RUN_ID,
        "ti": Instance(),
        "task": task,
    }
    task.render_template_fields(context, dag.get_template_env())
    return task
