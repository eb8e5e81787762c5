"""The pages behind the tab "Training report": live while a run trains, afterwards its report.

The pages run no script. A user who may not read the DAG gets none of them, and a run id that
Airflow does not know never becomes part of an S3 key. Endpoints are plain functions, which FastAPI
calls in threads: a slow S3 does not block Airflow's own API.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from lung import run_report_page as page
from lung.run_files import RunFiles, UnreadableError
from lung.run_state import find_run

log = logging.getLogger(__name__)

# Runs of other DAGs may have the same id, and other permitted readers.
TRAINING_DAG, MASKS_DAG = "lung_segmentation", "lung_masks"
# Between two loads of a live page, and of one that S3 did not answer.
REFRESH_SECONDS, RETRY_SECONDS = 5, 30
# Content-Security-Policy headers.
ISOLATED = "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
OWN_POLICY = f"default-src 'none'; style-src {page.STYLE_SOURCE}; img-src data:; {ISOLATED}"
# The report comes from a bucket: `sandbox` gives it an origin apart from Airflow's.
REPORT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {ISOLATED}; sandbox"
# {HTTP status: (title, text)}
ERRORS = {
    401: ("Log in first", "This page is for users who are logged in to Airflow."),
    403: ("No access", "Your user may not read this DAG."),
    404: ("No such run", "Airflow has no run of this DAG with this id."),
}

# No /openapi.json and so no /docs: both would be open to everybody.
app = FastAPI(title="Training report", openapi_url=None)


@app.get(
    "/dags/{dag_id}/runs/{run_id:path}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))],
)
def show(dag_id: str, run_id: str) -> HTMLResponse:
    """The report of a published run, otherwise the progress of its training."""
    run = find_run(dag_id, run_id) if run_id.isprintable() else None
    if run is None:
        raise HTTPException(404)
    if dag_id != TRAINING_DAG:
        text = f"{dag_id} trains nothing: {TRAINING_DAG} has the reports."
        failures = run.failures if dag_id == MASKS_DAG else ()
        return respond(page.notice("No training report", text, failures))
    files = RunFiles(run_id)
    if run.tasks.get("publish") == "success" and (report := files.report()):
        return respond(report, policy=REPORT_POLICY)
    folder, epochs, step = files.trained() or ("", 0, None)
    history = files.history(folder) if folder else []
    curves = files.curves(folder) if history else None
    # A run that is over does not change, and its page does not reload.
    refresh_seconds = 0 if run.is_over else REFRESH_SECONDS
    content = page.progress(
        run, history, epochs, step, curves=curves, folder=folder, refresh_seconds=refresh_seconds
    )
    return respond(content, refresh_seconds=refresh_seconds)


@app.get("/tab.js")
def show_tab_script() -> Response:
    """The script that hides the tab on other DAGs' runs; it holds nothing that needs a log-in."""
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(page.TAB_SCRIPT, media_type="text/javascript", headers=headers)


@app.exception_handler(UnreadableError)
def show_unreadable(request: Request, error: UnreadableError) -> HTMLResponse:
    log.warning("No training report: %s", error)
    remedy = f"Training goes on without this page, which tries again every {RETRY_SECONDS} s."
    run = find_run(request.path_params["dag_id"], request.path_params["run_id"])
    failures = run.failures if run else ()
    content = page.notice("The report cannot be read", f"{error}. {remedy}", failures)
    return respond(content, status=503, refresh_seconds=RETRY_SECONDS)


@app.exception_handler(StarletteHTTPException)
def show_refusal(request: Request, error: StarletteHTTPException) -> HTMLResponse:
    title, text = ERRORS.get(error.status_code, (f"{error.status_code}", str(error.detail)))
    return notice(title, text, error.status_code)


def notice(title: str, text: str, status: int) -> HTMLResponse:
    return respond(page.notice(title, text), status=status)


def respond(
    content: str | bytes, *, status: int = 200, policy: str = OWN_POLICY, refresh_seconds: int = 0
) -> HTMLResponse:
    """The response with the page's security headers; reloaded after `refresh_seconds`, 0: never."""
    headers: dict[str, Any] = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    if refresh_seconds:
        headers["Refresh"] = str(refresh_seconds)
    return HTMLResponse(content, status_code=status, headers=headers)
