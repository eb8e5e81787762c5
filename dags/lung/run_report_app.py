"""The pages behind the tabs "Training report" and "Masks" of a run.

The report is live while a run trains. The masks are shown once all of them are made.

The pages run no script. A user who may not read the DAG gets none of them, and a run id that
Airflow does not know never becomes part of an S3 key. Endpoints are plain functions, which FastAPI
calls in threads: a slow S3 does not block Airflow's own API.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from lung import masks_page
from lung import run_report_page as page
from lung.mask_files import MaskFiles
from lung.mask_sheet import Sheet
from lung.masks_page import Frame
from lung.run_files import RunFiles
from lung.run_folder import safe_run_id
from lung.run_report_page import Run
from lung.run_state import find_run
from lung.s3_files import UnreadableError

log = logging.getLogger(__name__)

# Runs of other DAGs may have the same id, and other permitted readers.
TRAINING_DAG, MASKS_DAG = "lung_segmentation", "lung_masks"
# {DAG: the task whose masks its runs show}
MASKING = {TRAINING_DAG: "predict", MASKS_DAG: "inbox"}
PAGE_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
# Between two loads of a live page, and of one that S3 did not answer.
REFRESH_SECONDS, RETRY_SECONDS = 5, 30
# Content-Security-Policy headers.
ISOLATED = "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
OWN_POLICY = f"default-src 'none'; style-src {page.STYLE_SOURCE}; img-src data:; {ISOLATED}"
MASKS_POLICY = f"default-src 'none'; style-src {masks_page.STYLE_SOURCE}; img-src data:; {ISOLATED}"
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


ACCESS = Depends(requires_access_dag("GET", DagAccessEntity.RUN))


@app.get("/dags/{dag_id}/runs/{run_id:path}", dependencies=[ACCESS])
def show_report(dag_id: str, run_id: str) -> HTMLResponse:
    """The report of a published run, otherwise the progress of its training."""
    run = known_run(dag_id, run_id)
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


@app.get("/masks/dags/{dag_id}/runs/{run_id:path}", dependencies=[ACCESS])
def show_masks(dag_id: str, run_id: str, page: str = "1") -> HTMLResponse:
    """A page of the run's masks, from 1, or what there is before all of them are made."""
    run = known_run(dag_id, run_id)
    if dag_id not in MASKING:
        return notice("No masks", f"{dag_id} masks no films: {' and '.join(MASKING)} do.", 200)
    job, files = MASKING[dag_id], MaskFiles(run_id)
    predictions = files.predictions() if job == "predict" else None
    # Without its folder of predictions a run of predict has nothing; an inbox has the run's folder.
    has_folder = predictions is not None or job == "inbox"
    if has_folder and (sheet := files.sheet(predictions)):
        return show_sheet(Frame(run, job), files, sheet, page)
    if has_folder and (table := files.table(predictions)):
        return respond(masks_page.of_table(Frame(run, job), table), policy=MASKS_POLICY)
    parts = (0, 0)
    if predictions and predictions.parts:
        parts = files.parts_written(predictions), predictions.parts
    refresh_seconds = 0 if run.is_over else REFRESH_SECONDS
    content = masks_page.of_state(Frame(run, job, refresh_seconds), parts=parts)
    return respond(content, policy=MASKS_POLICY, refresh_seconds=refresh_seconds)


def show_sheet(frame: Frame, files: MaskFiles, sheet: Sheet, page: str) -> HTMLResponse:
    count = max(1, len(sheet.pages) - 1)
    if not PAGE_NUMBER.fullmatch(page) or int(page) > count:
        return notice("No such page", f"The masks of this run have the pages 1 to {count}.", 404)
    films = files.films(sheet, int(page)) if sheet.films else []
    is_own = sheet.run_id == safe_run_id(frame.run.run_id)
    content = masks_page.of_sheet(
        *(frame, sheet, int(page), films, files.previews(sheet, films)),
        reused_from="" if is_own else sheet.run_id,
    )
    return respond(content, policy=MASKS_POLICY)


@app.get("/tabs.js")
def show_tabs_script() -> Response:
    """The script that hides our tabs on other DAGs' runs; it holds nothing that needs a log-in."""
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(page.TABS_SCRIPT, media_type="text/javascript", headers=headers)


@app.exception_handler(UnreadableError)
def show_unreadable(request: Request, error: UnreadableError) -> HTMLResponse:
    log.warning("No page of the run: %s", error)
    remedy = f"The run goes on without this page, which tries again every {RETRY_SECONDS} s."
    run = find_run(request.path_params["dag_id"], request.path_params["run_id"])
    failures = run.failures if run else ()
    content = page.notice("The page cannot be read", f"{error}. {remedy}", failures)
    return respond(content, status=503, refresh_seconds=RETRY_SECONDS)


@app.exception_handler(StarletteHTTPException)
def show_refusal(request: Request, error: StarletteHTTPException) -> HTMLResponse:
    title, text = ERRORS.get(error.status_code, (f"{error.status_code}", str(error.detail)))
    return notice(title, text, error.status_code)


def known_run(dag_id: str, run_id: str) -> Run:
    run = find_run(dag_id, run_id) if run_id.isprintable() else None
    if run is None:
        raise HTTPException(404)
    return run


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
