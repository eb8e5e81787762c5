"""seen: which patients a network has met, from what it was trained on and from what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.films.seen_patients import read_seen
from jobs.settings.config import PreprocessConfig, TrainConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

FILMS = (
    ("m1", "montgomery", "train"),
    ("m2", "montgomery", "val"),
    ("m3", "montgomery", "test"),
    ("s1", "shenzhen", "train"),
    ("s2", "shenzhen", "val"),
    ("both", "montgomery", "train"),
    ("both", "shenzhen", "train"),
)
QUARANTINED = {"patient": "q1", "source": "montgomery", "status": "quarantined", "reason": "blank"}


@pytest.fixture
def processed(store: Store, out: str) -> Manifest:
    config = PreprocessConfig(raw=f"{out}/manifest.json", out=out)
    stage = WorkFolder(store, config, job="preprocess", folder="processed", recipe="made up")
    rows: list[dict[str, str]] = [
        {"patient": patient, "source": source, "split": split, "status": "ok"}
        for patient, source, split in FILMS
    ]
    for _ in stage.write_rows([*rows, QUARANTINED], len(rows) + 1, lambda row: row):
        pass
    details = {"by_source": {f"{source}/{split}": 1 for _, source, split in FILMS}}
    return stage.finish(counts={}, headline={}, details=details)


def train(store: Store, out: str, processed: Manifest, **data: Any) -> Manifest:
    stage = WorkFolder(
        store,
        TrainConfig(processed=processed.uri, out=out),
        job="train",
        folder="trained",
        recipe="made up",
        inputs={"processed": processed},
    )
    stage.add_file("model.json", json.dumps({"data": data}).encode())
    return stage.finish(counts={}, headline={})


def test_seen_are_the_patients_of_train_and_val_in_the_sources_trained_on(
    store: Store, out: str, processed: Manifest
) -> None:
    seen = read_seen(store, train(store, out, processed, train_sources=["montgomery"]))
    assert seen.sources == ["montgomery"]
    assert seen.splits == {"m1": "train", "m2": "val", "both": "train"}
    assert [seen.split_of(patient) for patient in ("m1", "m2", "m3")] == ["train", "val", "test"]
    assert seen.split_of("s1") == seen.split_of("s2") == "test"


def test_a_patient_met_in_one_source_is_no_stranger_in_another(
    store: Store, out: str, processed: Manifest
) -> None:
    seen = read_seen(store, train(store, out, processed, train_sources=["montgomery"]))
    assert seen.split_of("both") == "train"


def test_a_model_that_names_no_sources_has_seen_all(
    store: Store, out: str, processed: Manifest
) -> None:
    seen = read_seen(store, train(store, out, processed))
    assert seen.sources == ["montgomery", "shenzhen"]
    assert {p for p, _, _ in FILMS if seen.split_of(p) == "test"} == {"m3"}
    assert seen.split_of("of another set") == "test"
