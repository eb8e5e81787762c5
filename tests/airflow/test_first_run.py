"""The first run under a real scheduler: no scheduled one before its tick, one's own at once."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.serving import AIRFLOW_PYTHON, ROOT, Served, served_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]

SCHEDULES = {"LUNG_SCHEDULE": "@weekly", "LUNG_MASKS_SCHEDULE": "@daily"}
SMALL = {"SOURCE": "synthetic://phantoms?films=12&seed=0", "SIZE": "64", "EPOCHS": "1"}


def dag_run(airflow: Served, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(AIRFLOW_PYTHON), "-u", "-m", "scripts.airflow.dag_run"],
        cwd=ROOT,
        env=os.environ | airflow.environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def runs(airflow: Served, dag: str) -> list[dict[str, Any]]:
    return list(airflow.get(f"/dags/{dag}/dagRuns")["dag_runs"])


def test_unpausing_starts_no_scheduled_run_and_ones_own_at_once_which_is_left_and_followed() -> (
    None
):
    with served_airflow(environment=SCHEDULES) as airflow:
        for dag in ("lung_segmentation", "lung_masks"):
            airflow.patch(f"/dags/{dag}", {"is_paused": True})
        airflow.patch("/dags/lung_masks", {"is_paused": False})
        today = datetime.now(UTC)
        sunday = today + timedelta(days=7 - today.isoweekday() % 7)
        with dag_run(airflow, **SMALL) as process:
            assert process.stdout
            first, own = process.stdout.readline(), process.stdout.readline().split()[0]
            assert first == (
                "lung_segmentation was paused and is unpaused now: its next scheduled run is on "
                f"Sunday {sunday:%Y-%m-%d} 00:00 UTC\n"
            )
            # Nothing is said before it, such as for which other run it waits.
            assert process.stdout.readline().split()[1:] in (
                ["download", "running"],
                ["shards", "running"],
            )
            process.send_signal(signal.SIGINT)
            again = f"The run goes on; to follow it again: make dag-run RUN_ID={own}"
            assert process.stdout.read().splitlines()[-1] == again
            assert process.wait() == 130
        with dag_run(airflow, RUN_ID=own) as process:
            assert process.stdout
            output = process.stdout.read()
            assert process.wait() == 0, output
        assert output.startswith(f"{own} is running\n")
        assert [run["dag_run_id"] for run in runs(airflow, "lung_segmentation")] == [own]
        assert runs(airflow, "lung_masks") == []
        with dag_run(airflow, RUN_ID="manual__never") as process:
            assert process.stdout
            assert "lung_segmentation has no such run" in process.stdout.read()
            assert process.wait() == 2
