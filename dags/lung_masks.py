"""The DAG that masks new films with the champion, every day and after a change of the champion."""

from __future__ import annotations

from datetime import timedelta

import lung.prerequisites  # noqa: F401  # dags/lung, which belongs into the plugins folder

# isort: split
from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from lung.assets import CHAMPION
from lung.form import container_params, params
from lung.gpu_share import one_gpu
from lung.settings import schedule
from lung.tasks import POLICY, job_task

DOC = """
### Masks for new films

Writes a lung mask for every film below **Inbox** that the champion of **Model name** has not masked
yet. Until there is a champion the starter masks, the model that comes with the project, as a version
of the model like any other; not where **Starter until there is a champion** is off. Films are PNG, JPEG, TIFF, GIF, BMP, WebP or JPEG 2000 files, in folders of any depth; all other
files are listed with their reasons in the run's `skipped.csv`. Each film is masked once per model
version; a replaced file is masked again. A new champion masks all films again, in a new folder, or
only the films that arrive from then on, where **Mask all films anew with a new champion** is off.
A run without new films ends in seconds; one with neither champion nor starter succeeds without a mask.

Masks: `masks/<name>/<version>/<id>.png` under `LUNG_BUCKET_URI`, at each film's original size. The
run's table, `runs/<run_id>/masks.csv`, has one row per film: the mask's URI, the lung's share of
the image, the quality score, and whether a person should review the mask. The run's tab *Masks*
shows the films with their masks, those for review first, and why a run failed.

The schedule is daily (`LUNG_MASKS_SCHEDULE`), and at once when `lung_segmentation` publishes a new
champion, the asset `lung_champion`. A champion restored by `python -m jobs champion` makes no event: the
next run takes it up; trigger one to mask at once. Unpaused for the first time, the DAG waits for the next
tick of its schedule. After a later pause, or when Airflow was down, it runs once at once if it missed a tick;
that run, or the next one, masks all films that arrived meanwhile.

| task | what it does | when it fails |
|---|---|---|
| inbox | masks the new films | 2: the bucket of **Inbox** is absent. 77: renew the keys in the connection `lung_s3`. 75: another run masks the same films, or this one was stopped; the next try resumes. Killed for memory: raise **Memory**. |

An unreadable film does not fail the run: `masks.csv` has the reason, and the film is tried again
once it is replaced. The task may fail without an error: The task's process was lost: it was killed,
mostly for lack of memory, or its machine went away. A try that is left resumes from the saved
state; after the last one, clear this task. The connections and the webhook are those of
`lung_segmentation`.
"""


def clock_or_champion(clock: CronTriggerTimetable | None) -> AssetOrTimeSchedule | list[object]:
    """The schedule of a clock and a new champion; None: the champion only."""
    if clock is None:
        return [CHAMPION]
    return AssetOrTimeSchedule(timetable=clock, assets=[CHAMPION])


with DAG(
    dag_id="lung_masks",
    dag_display_name="Lung masks",
    description="Masks by the champion, or until then the starter, for every new film of an inbox",
    doc_md=DOC,
    schedule=clock_or_champion(schedule("LUNG_MASKS_SCHEDULE")),
    tags=["lung", "segmentation", "masks"],
    params=params("inbox", **container_params()),
    **POLICY,
) as dag:
    job_task("inbox", execution_timeout=timedelta(days=1), **one_gpu())
