"""The pages behind the tab of a run: its training report and its masks.

A run of `lung_segmentation` has both, one of `lung_masks` the masks. The report is live while the
run trains; the masks are there once they are all made.

The pages run no script. A user who may not read the DAG gets none of them, and a run id that
Airflow does not know never becomes part of an S3 key. Endpoints are plain functions, which FastAPI
calls in threads: a slow S3 does not block Airflow's own API.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models import DagRun, TaskInstance
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.exceptions import HTTPException as StarletteHTTPException

from lung import masks_page
from lung import run_report_page as page
from lung.mask_files import MaskFiles
from lung.masks_page import Frame
from lung.run_files import RunFiles
from lung.run_folder import safe_run_id
from lung.run_report_page import Run
from lung.s3_files import UnreadableError

log = logging.getLogger(__name__)

# Runs of other DAGs may have the same id, and other permitted readers.
TRAINING_DAG = "lung_segmentation"
# {DAG: the task whose masks its runs show}
MASKING = {TRAINING_DAG: "predict", "lung_masks": "inbox"}
PAGE = re.compile(r"[1-9][0-9]{0,8}")
# Between two loads of a live page, and of one that S3 did not answer.
REFRESH_SECONDS, RETRY_SECONDS = 5, 30
# Content-Security-Policy headers.
ISOLATED = "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
OWN_POLICY = f"default-src 'none'; style-src {page.STYLE_SOURCE}; img-src data:; {ISOLATED}"
MASKS_POLICY = (
    f"default-src 'none'; style-src {masks_page.STYLE_SOURCE}; img-src data:; frame-src 'self'; "
    f"{ISOLATED}"
)
# The report comes from a bucket: `sandbox` gives it an origin apart from Airflow's.
REPORT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {ISOLATED}; sandbox"
# {HTTP status: (title, text)}
ERRORS = {
    401: ("Log in first", "This page is for users who are logged in to Airflow."),
    403: ("No access", "Your user may not read this DAG."),
    404: ("No such run", "Airflow has no run of this DAG with this id, or the run no such page."),
}

# No /openapi.json and so no /docs: both would be open to everybody.
app = FastAPI(title="Training report", openapi_url=None)


@app.get(
    "/dags/{dag_id}/runs/{run_id:path}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))],
)
def show_run(dag_id: str, run_id: str, show: str = "", page: str = "1") -> HTMLResponse:
    """The page of a run: `show` is report, masks (with its `page`) or nothing, for the first."""
    run = find_run(dag_id, run_id) if run_id.isprintable() else None
    if run is None:
        raise HTTPException(404)
    if dag_id not in MASKING:
        text = f"{dag_id} neither trains nor masks: {' and '.join(MASKING)} do."
        return notice("Nothing to show", text, 200)
    if show == "masks" or (not show and dag_id != TRAINING_DAG):
        return show_masks(dag_id, run, page)
    if dag_id != TRAINING_DAG or show not in ("", "report"):
        raise HTTPException(404)
    return show_report(run) if show else respond(masks_page.tabs(run), policy=MASKS_POLICY)


def show_report(run: Run) -> HTMLResponse:
    """The report of a published run, otherwise the progress of its training."""
    files = RunFiles(run.run_id)
    if run.tasks.get("publish") == "success" and (report := files.report()):
        return respond(report, policy=REPORT_POLICY)
    folder, epochs = files.trained() or ("", 0)
    history = files.history(folder) if folder else []
    curves = files.curves(folder) if history else None
    # A run that is over does not change, and its page does not reload.
    refresh_seconds = 0 if run.is_over else REFRESH_SECONDS
    content = page.progress(
        run, history, epochs, curves=curves, folder=folder, refresh_seconds=refresh_seconds
    )
    return respond(content, refresh_seconds=refresh_seconds)


def show_masks(dag_id: str, run: Run, number: str) -> HTMLResponse:
    """A page of the run's masks, from 1, or what there is before all of them are made."""
    job, files = MASKING[dag_id], MaskFiles(run.run_id)
    predictions = files.predictions() if job == "predict" else None
    frame = Frame(run, job, tabs=dag_id == TRAINING_DAG)
    has_masks = predictions is not None or job != "predict"
    if has_masks and (sheet := files.sheet(predictions)):
        if not PAGE.fullmatch(number) or int(number) > max(1, len(sheet.pages) - 1):
            raise HTTPException(404)
        films = files.films(sheet, int(number)) if sheet.films else []
        previews = files.previews(sheet, films)
        is_own = sheet.run_id == safe_run_id(run.run_id)
        reused_from = "" if is_own else sheet.run_id
        content = masks_page.of_sheet(
            frame, sheet, int(number), films, previews, reused_from=reused_from
        )
        return respond(content, policy=MASKS_POLICY)
    if has_masks and (table := files.table(predictions)):
        return respond(masks_page.of_table(frame, table), policy=MASKS_POLICY)
    parts = (0, 0)
    if predictions and predictions.parts:
        parts = files.parts_written(predictions), predictions.parts
    refresh_seconds = 0 if run.is_over else REFRESH_SECONDS
    frame = replace(frame, refresh_seconds=refresh_seconds)
    content = masks_page.of_state(frame, parts=parts)
    return respond(content, policy=MASKS_POLICY, refresh_seconds=refresh_seconds)


def find_run(dag_id: str, run_id: str) -> Run | None:
    """The run in Airflow's database; None where it has no run with this id."""
    with create_session(scoped=False) as session:
        key = {"dag_id": dag_id, "run_id": run_id}
        state = session.scalar(select(DagRun.state).filter_by(**key))
        if state is None:
            return None
        tasks = select(TaskInstance.task_id, TaskInstance.state).filter_by(**key)
        return Run.of(run_id, str(state), [(task, state) for task, state in session.execute(tasks)])


@app.exception_handler(UnreadableError)
def show_unreadable(request: Request, error: UnreadableError) -> HTMLResponse:
    log.warning("No page of the run: %s", error)
    remedy = f"The run goes on without this page, which tries again every {RETRY_SECONDS} s."
    content = page.notice("The page cannot be read", f"{error}. {remedy}")
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
