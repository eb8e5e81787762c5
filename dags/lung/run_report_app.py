"""The pages behind the tab "Training report": live while a run trains, its report afterwards.

Nothing in them runs. Who may not read the DAG gets none of them, and a run that Airflow does not
know leads to no object in S3. Endpoints are plain functions, which FastAPI calls in threads, so
that a slow S3 does not hold up Airflow's own API.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models import DagRun, TaskInstance
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.exceptions import HTTPException as StarletteHTTPException

from lung import run_report_page as page
from lung.run_files import RunFiles, UnreadableError
from lung.run_report_page import Run

log = logging.getLogger(__name__)

# Other DAGs' runs may have the same id, and other readers.
TRAINING_DAG = "lung_segmentation"
REFRESH_SECONDS, PATIENT_SECONDS = 5, 30
ALONE = "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
OWN_POLICY = f"default-src 'none'; style-src {page.STYLE_SOURCE}; img-src data:; {ALONE}"
# The report comes from a bucket: it gets what its own policy asks for, and an origin of its own.
REPORT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {ALONE}; sandbox"
NOTICES = {
    401: ("Log in first", "This page is for those who are logged in to Airflow."),
    403: ("Not for this login", "Your login may not read this DAG."),
    404: ("There is no such run", "Airflow knows no run of this DAG by this name."),
}

# Its descriptions of itself would be open to everybody.
app = FastAPI(title="Training report", openapi_url=None)


@app.get(
    "/dags/{dag_id}/runs/{run_id:path}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))],
)
def show(dag_id: str, run_id: str) -> HTMLResponse:
    """The report of a run that is published, otherwise how far its training has come."""
    run = find_run(dag_id, run_id) if run_id.isprintable() else None
    if run is None:
        raise HTTPException(404)
    if dag_id != TRAINING_DAG:
        return notice(
            "No training report", f"{dag_id} trains nothing: {TRAINING_DAG} has the reports.", 200
        )
    files = RunFiles(run_id)
    if run.tasks.get("publish") == "success" and (report := files.report()):
        return respond(report, policy=REPORT_POLICY)
    folder, epochs = files.trained() or ("", 0)
    history = files.history(folder) if folder else []
    curves = files.curves(folder) if history else None
    # A run that is over does not change: who looks at it is left in peace.
    every = REFRESH_SECONDS if run.state in ("queued", "running") else 0
    return respond(
        page.progress(run, history, epochs, curves=curves, folder=folder, every=every), every=every
    )


def find_run(dag_id: str, run_id: str) -> Run | None:
    """The run as Airflow's database has it; None where there is none of this name."""
    with create_session(scoped=False) as session:
        of_run = {"dag_id": dag_id, "run_id": run_id}
        state = session.scalar(select(DagRun.state).filter_by(**of_run))
        if state is None:
            return None
        tasks = select(TaskInstance.task_id, TaskInstance.state).filter_by(**of_run)
        return Run.of(run_id, str(state), [(task, state) for task, state in session.execute(tasks)])


@app.exception_handler(UnreadableError)
def say_unreadable(request: Request, error: UnreadableError) -> HTMLResponse:
    log.warning("No training report: %s", error)
    remedy = f"Training goes on without this page, which tries again every {PATIENT_SECONDS} s."
    content = page.notice("The report cannot be read", f"{error}. {remedy}")
    return respond(content, status=503, every=PATIENT_SECONDS)


@app.exception_handler(StarletteHTTPException)
def say_refused(request: Request, error: StarletteHTTPException) -> HTMLResponse:
    title, text = NOTICES.get(error.status_code, (f"{error.status_code}", str(error.detail)))
    return notice(title, text, error.status_code)


def notice(title: str, text: str, status: int) -> HTMLResponse:
    return respond(page.notice(title, text), status=status)


def respond(
    content: str | bytes, *, status: int = 200, policy: str = OWN_POLICY, every: int = 0
) -> HTMLResponse:
    headers: dict[str, Any] = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    if every:
        headers["Refresh"] = str(every)
    return HTMLResponse(content, status_code=status, headers=headers)
