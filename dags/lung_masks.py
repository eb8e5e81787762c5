"""The DAG that masks new films with the champion, every day and when there is a new champion."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from lung.assets import CHAMPION
from lung.tasks import POLICY, container_params, flags, params, schedule, stage

DOC = """
### Masks for new films

Writes a lung mask for every film below **Inbox** that the champion of **Model name** has not masked
yet: PNG, JPEG or TIFF, in any folders. Each film is done once a model version: one that was
replaced is done again, and a new champion does all of them again, in a folder of its own. With
nothing new a run ends in seconds; without a champion it waits for the first.

Masks: `masks/<name>/<version>/<id>.png` under `LUNG_BUCKET_URI`, at each film's own size. What a run
did: `runs/<run_id>/masks.csv`, a line a film with its mask's URI, share of lung and
quality, and whether a person should look at it.

It runs daily (`LUNG_MASKS_SCHEDULE`), and at once when `lung_segmentation` publishes a new champion,
the asset `lung_champion`. Paused, it misses nothing: its next run does what is new then.

| task | what it does | when it fails |
|---|---|---|
| inbox | masks the new films | 2: the bucket of **Inbox** is absent. 77: renew the keys in the connection `lung_s3`. 75: another run masks the same films, or it was stopped; the next try goes on. Killed for memory: raise **Memory**. |

A film that cannot be read fails no run: `masks.csv` has its reason, and it is tried again when it is
replaced. Connections and webhook are those of `lung_segmentation`.
"""


def clock_or_champion(cron: str | None) -> AssetOrTimeSchedule | list[object]:
    if cron is None:
        return [CHAMPION]
    clock = CronTriggerTimetable(cron, timezone="UTC")
    return AssetOrTimeSchedule(timetable=clock, assets=[CHAMPION])


with DAG(
    dag_id="lung_masks",
    dag_display_name="Lung masks",
    description="Masks with the champion for every new film of an inbox",
    doc_md=DOC,
    schedule=clock_or_champion(schedule("LUNG_MASKS_SCHEDULE")),
    tags=["lung", "segmentation", "masks"],
    params=params("inbox", **container_params()),
    **POLICY,
) as dag:
    stage("inbox", flags("inbox"), execution_timeout=timedelta(days=1))
