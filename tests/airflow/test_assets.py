"""Both DAGs in Airflow, on phantoms: asset events, the DAG that waits for them, notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.storage.s3 import Store
from tests.support.airflow_tasks import ROOT, connection_of
from tests.support.webhook import SECRET, Webhook, webhook

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

OUT = "s3://lung/assets/pipeline"
FILMS = 24
FORM: dict[str, Any] = {
    "source": f"synthetic://phantoms?films={FILMS}&seed=0",
    "size": 64,
    "epochs": 1,
    "network": "small",
    "min_dice": 0.0,
}


class Runs:
    """The outcome of five runs: first, second (unchanged films), masks, failed and misspelt."""

    def __init__(self, outcome: dict[str, Any], output: str, notices: list[str]) -> None:
        self.states: list[str] = outcome["states"]
        self.events: list[tuple[str, str, dict[str, Any]]] = outcome["events"]
        self.queued: list[str] = outcome["queued"]
        self.output = output
        self.notices = notices

    def extras(self, asset: str) -> list[dict[str, Any]]:
        return [extra for name, _, extra in self.events if name == asset]


@pytest.fixture(scope="module")
def runs(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    home = tmp_path_factory.mktemp("airflow")
    with webhook() as listener, pytest.MonkeyPatch.context() as patch:
        for name, value in (s3 | settings(home, s3, listener)).items():
            patch.setenv(name, value)
        airflow = Path(sys.executable).with_name("airflow")
        subprocess.run([airflow, "db", "migrate"], check=True, capture_output=True)
        forms = [
            ["lung_segmentation", FORM],
            ["lung_segmentation", FORM],
            ["lung_masks", {}],
            ["lung_segmentation", FORM | {"source": "file:///nowhere/films.zip"}],
            ["lung_segmentation", FORM | {"epoch": 3}],
        ]
        outcome = home / "outcome.json"
        command = [sys.executable, "-m", "tests.support.dag_runs", json.dumps(forms), str(outcome)]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        output = process.stdout + process.stderr
        assert process.returncode == 0, output
        yield Runs(json.loads(outcome.read_text()), output, listener.texts)


def settings(home: Path, s3: dict[str, str], listener: Webhook) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW_CONN_LUNG_S3": connection_of(s3),
        "AIRFLOW_CONN_LUNG_WEBHOOK": listener.url,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "dags")]),
        "LUNG_BACKEND": "process",
        "LUNG_BUCKET_URI": OUT,
        "LUNG_INBOX": f"{OUT}/raw",  # download copies the films here
    }


def test_three_runs_succeed_and_those_without_a_source_and_with_a_misspelt_param_fail(
    runs: Runs,
) -> None:
    assert runs.states == ["success"] * 3 + ["failed"] * 2, runs.output


def test_each_training_is_an_event_with_its_figures_and_its_histories_uris(
    runs: Runs,
) -> None:
    first, second = runs.extras("lung_training")
    assert [first["reused"], second["reused"]] == [False, True]
    assert first["manifest"] == second["manifest"]
    assert 0 < first["train_loss"] < 1
    assert {"val_loss", "val_dice"} <= first.keys()
    history = Store().read_json(first["files"]["history.json"])
    assert history["epochs"][-1]["train_loss"] == pytest.approx(first["train_loss"], abs=1e-6)


def test_only_a_new_champion_is_an_event_and_it_queues_the_daily_masks(
    runs: Runs,
) -> None:
    (moved,) = runs.extras("lung_champion")
    assert (moved["champion"], moved["name"]) == ("first", "lung-unet")
    assert runs.queued == ["lung_masks"]


def test_the_champion_masks_the_inbox(runs: Runs) -> None:
    champion = Store().read_json(f"{OUT}/models/lung-unet/champion.json")
    folder = f"{OUT}/masks/lung-unet/{champion['version']}/"
    masks = [item for item in Store().list_objects(folder) if item.uri.endswith(".png")]
    assert len(masks) == FILMS


def test_notices_report_the_champion_the_reused_work_and_the_failure(
    runs: Runs,
) -> None:
    first, second, failure, misspelt = runs.notices
    assert "lung-unet has its first champion" in first
    assert "Reused from an earlier run: nothing." in first
    assert "lung-unet keeps its champion" in second
    assert "Nothing had changed: all work before publish was reused" in second
    assert "download failed on try 1" in failure
    assert "exit code 2" in failure and "films.zip" in failure
    assert "/tasks/download?try_number=1" in failure
    assert "lung_segmentation has no param epoch" in misspelt


def test_the_log_holds_neither_the_webhooks_url_nor_a_key(runs: Runs, s3: dict[str, str]) -> None:
    assert SECRET not in runs.output
    assert s3["AWS_SECRET_ACCESS_KEY"] not in runs.output
