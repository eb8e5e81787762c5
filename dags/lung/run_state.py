"""A run as Airflow's database has it: its tasks' states, and why tasks failed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.models import DagRun, TaskInstance
from airflow.models.dagbag import DBDagBag
from airflow.models.log import Log
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from lung.notices import ERROR_KEY, LONGEST_ERROR, LOST
from lung.run_failures import FAILED, RETRIED, Try, failures
from lung.run_report_page import Run

# What the scheduler writes to the audit log of a task whose supervisor is gone.
HEARTBEAT_TIMEOUT = "heartbeat timeout"
NO_ERROR = f"It left no error. Unless somebody marked it as failed: {LOST}"
NOT_STARTED = (
    "It did not start: it was marked as failed, or the scheduler could not start it, whose log "
    "then says why"
)


def find_run(dag_id: str, run_id: str) -> Run | None:
    """The run; None where Airflow has no run of this DAG with this id."""
    with create_session(scoped=False) as session:
        key = {"dag_id": dag_id, "run_id": run_id}
        run = session.scalar(select(DagRun).filter_by(**key))
        if run is None:
            return None
        order = (TaskInstance.task_id, TaskInstance.map_index)
        instances = session.scalars(select(TaskInstance).filter_by(**key).order_by(*order)).all()
        errors = _errors(session, key) if any(item.state in FAILED for item in instances) else {}
        dags = DBDagBag()
        tries = [_last_try(session, dags, item, errors) for item in instances]
        return Run.of(
            run_id,
            str(run.state),
            [(item.task_id, item.state) for item in instances],
            tries={item.task: (item.number, item.most) for item in tries if item.number > 1},
            failures=list(failures(tries)),
        )


def _errors(session: Any, key: Mapping[str, str]) -> dict[tuple[str, int, int], str]:
    """{(task, map index, try): error} of the tries whose error the run has."""
    errors = {}
    timeouts = select(Log.task_id, Log.map_index, Log.try_number, Log.extra).filter_by(
        **key, event=HEARTBEAT_TIMEOUT
    )
    for task, map_index, number, text in session.execute(timeouts):
        errors[task, map_index, number] = f"{LOST}. Airflow's audit log: {text}"
    columns = (XComModel.task_id, XComModel.map_index, XComModel.value)
    for task, map_index, value in session.execute(select(*columns).filter_by(**key, key=ERROR_KEY)):
        # Whoever may edit XComs may have put anything there.
        match value:
            case {"try": int(number), "error": str(error)}:
                errors[task, map_index, number] = error[:LONGEST_ERROR]
    return errors


def _last_try(
    session: Any, dags: DBDagBag, item: TaskInstance, errors: Mapping[tuple[str, int, int], str]
) -> Try:
    number = item.try_number or 0
    error = errors.get((item.task_id, item.map_index, number))
    return Try(
        item.task_id,
        item.state or "none",
        number,
        max(number, (item.max_tries or 0) + 1),
        shard=item.map_index + 1,
        error=error or (NO_ERROR if item.start_date else NOT_STARTED),
        retry_seconds=_retry_seconds(session, dags, item) if item.state == RETRIED else None,
    )


def _retry_seconds(session: Any, dags: DBDagBag, item: TaskInstance) -> float | None:
    """Seconds until the task's next try; None where Airflow has no such task in its DAG."""
    dag = dags.get_dag_for_run(item.dag_run, session)
    if dag is None or not dag.has_task(item.task_id) or item.end_date is None:
        return None
    item.task = dag.get_task(item.task_id)
    next_try: datetime = item.next_retry_datetime()  # type: ignore[no-untyped-call]
    return (next_try - datetime.now(UTC)).total_seconds()
