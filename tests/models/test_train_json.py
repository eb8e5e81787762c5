"""train.json: what a training does after its last epoch, in the log and for Airflow's tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import download, preprocess, train
from jobs.models.train_json import TrainJson
from jobs.settings.config import DownloadConfig, PreprocessConfig, TrainConfig
from jobs.storage.s3 import Store
from lung.run_report_page import Step
from tests.support.films import write_montgomery

pytestmark = pytest.mark.slow


def test_the_steps_after_the_last_epoch_are_in_train_json_and_in_the_log(
    store: Store,
    out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_montgomery(tmp_path, 24)
    raw = download.run(DownloadConfig(source=tmp_path.as_uri(), out=out), store)
    processed = preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=32), store)
    config = TrainConfig(
        processed=processed.uri, out=out, run_id="r", epochs=1, batch_size=8, network="small"
    )
    written: list[dict[str, Any]] = []
    write = TrainJson.write

    def keep(self: TrainJson, step: Any = None) -> None:
        write(self, step)
        written.append(store.read_json(f"{out}/runs/r/train.json"))

    monkeypatch.setattr(TrainJson, "write", keep)
    monkeypatch.setattr("jobs.runtime.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO"):
        trained = train.run(config, store)

    location = {"trained": trained.root, "epochs": 1}
    assert written[0] == written[-1] == location, "no step before the last epoch, nor at the end"
    steps = [Step.of(content["step"]) for content in written[1:-1]]  # as Airflow's tab reads them
    assert all(content.items() >= location.items() for content in written)
    films = processed.counts["val"]
    predicted = [step for step in steps if step.name == "predicting the validation films"]
    assert [predicted[0].done, predicted[-1].done, predicted[-1].total] == [0, films, films]
    chosen = [step for step in steps if step.name == "choosing the threshold"]
    assert [step.done for step in chosen] == [*range(12)]
    assert {step.total for step in chosen} == {11}
    assert steps == predicted + chosen
    assert f"choosing the threshold on {films} validation films" in caplog.text
    assert "choosing the threshold 5 of 11" in caplog.text
