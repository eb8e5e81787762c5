"""Runs that a real scheduler starts: by the clock, and by a new champion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.storage.s3 import Store
from tests.support.serving import Served, served_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

OUT = "s3://lung/pipeline"
SMALL = {
    "source": "synthetic://phantoms?films=24&seed=0",
    "size": 64,
    "epochs": 1,
    "network": "small",
    "min_dice": 0.0,  # so that the first model becomes the champion
}


@pytest.fixture(scope="module")
def airflow() -> Iterator[Served]:
    settings = {"LUNG_MASKS_SCHEDULE": "* * * * *", "LUNG_FORM_DEFAULTS": '{"starter": false}'}
    with served_airflow(environment=settings) as served:
        yield served


def masks_run(airflow: Served, **attributes: Any) -> Any:
    """The first run of lung_masks with these attributes, or None."""
    runs = airflow.get("/dags/lung_masks/dagRuns", order_by="id", limit=100)["dag_runs"]
    return next((run for run in runs if run.items() >= attributes.items()), None)


def headline(airflow: Served, run: str) -> Any:
    path = f"/dags/lung_masks/dagRuns/{run}/taskInstances/inbox/xcomEntries/return_value"
    return airflow.get(path, deserialize="true")["value"]["headline"]


def test_the_clock_starts_the_daily_masks_which_succeed_without_a_champion(
    airflow: Served,
) -> None:
    airflow.wait_until(
        lambda: bool(masks_run(airflow, run_type="scheduled", state="success")), {True}, seconds=180
    )
    run = masks_run(airflow, run_type="scheduled", state="success")
    assert headline(airflow, run["dag_run_id"])["films"] == 0


def test_a_new_champion_starts_the_masks_at_once_and_a_kept_one_does_not(
    airflow: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in airflow.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    for expected in ("first", "kept"):
        run = airflow.trigger("lung_segmentation", SMALL)
        assert airflow.wait_for_end("lung_segmentation", run, seconds=400) == "success"
        path = f"/dags/lung_segmentation/dagRuns/{run}/taskInstances/publish/xcomEntries"
        result = airflow.get(f"{path}/return_value", deserialize="true")["value"]
        assert result["headline"]["champion"] == expected
    events = airflow.get("/assets/events", source_dag_id="lung_segmentation")["asset_events"]
    changes = [event for event in events if event["name"] == "lung_champion"]
    assert [event["extra"]["champion"] for event in changes] == ["first"]
    airflow.wait_until(
        lambda: bool(masks_run(airflow, run_type="asset_triggered", state="success")),
        {True},
        seconds=120,
    )
    # A film arrives; the next scheduled run masks it.
    store = Store()
    film = next(item.uri for item in store.list_objects(f"{OUT}/raw/") if "/films/" in item.uri)
    store.write("s3://lung/inbox/new.png", store.read(film))

    def masked() -> bool:
        objects = store.list_objects(f"{OUT}/masks/lung-unet/")
        return any(item.uri.endswith(".png") for item in objects)

    airflow.wait_until(masked, {True}, seconds=180)
