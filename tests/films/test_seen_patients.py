"""seen_patients: the patients of the training and validation films of the sources trained on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.films.seen_patients import read_seen_patients
from jobs.settings.config import PreprocessConfig, TrainConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.rows import OK_FIELDS

FILMS = (
    ("m1", "montgomery", "train"),
    ("m2", "montgomery", "val"),
    ("m3", "montgomery", "test"),
    ("s1", "shenzhen", "train"),
    ("s2", "shenzhen", "val"),
    ("both", "montgomery", "train"),
    ("both", "shenzhen", "train"),
)
FILM = {"id": "q1", "patient": "q1", "source": "montgomery", "label": "normal", "origin": "q1.png"}
QUARANTINED = {**FILM, "status": "quarantined", "reason": "blank"}
OK = {**FILM, **OK_FIELDS}


@pytest.fixture
def processed(store: Store, out: str) -> Manifest:
    config = PreprocessConfig(raw=f"{out}/manifest.json", out=out)
    work_folder = WorkFolder(store, config, job="preprocess", folder="processed", recipe="test")
    rows: list[dict[str, Any]] = [
        {**OK, "id": f"{source}-{patient}", "patient": patient, "source": source, "split": split}
        for patient, source, split in FILMS
    ]
    for _ in work_folder.write_rows([*rows, QUARANTINED], len(rows) + 1, lambda row: row):
        pass
    return work_folder.finish(counts={}, headline={})


def train(store: Store, out: str, processed: Manifest, sources: list[str]) -> Manifest:
    """A trained manifest whose model.json names `sources` as its training sources."""
    work_folder = WorkFolder(
        store,
        TrainConfig(processed=processed.uri, out=out),
        job="train",
        folder="trained",
        recipe="test",
        inputs={"processed": processed},
    )
    model_json = {"data": {"train_sources": sources}}
    work_folder.add_file("model.json", json.dumps(model_json).encode())
    return work_folder.finish(counts={}, headline={})


def test_seen_are_the_patients_of_train_and_val_in_the_sources_trained_on(
    store: Store, out: str, processed: Manifest
) -> None:
    seen = read_seen_patients(store, train(store, out, processed, ["montgomery"]), processed)
    assert seen.sources == ["montgomery"]
    assert seen.splits == {"m1": "train", "m2": "val", "both": "train"}
    assert [seen.split_of(patient) for patient in ("m1", "m2", "m3")] == ["train", "val", "test"]
    assert seen.split_of("s1") == seen.split_of("s2") == "test"


def test_a_patient_seen_in_one_source_is_seen_in_another(
    store: Store, out: str, processed: Manifest
) -> None:
    seen = read_seen_patients(store, train(store, out, processed, ["montgomery"]), processed)
    assert seen.split_of("both") == "train"


def test_a_model_trained_on_all_sources_has_seen_all_but_the_test_patients(
    store: Store, out: str, processed: Manifest
) -> None:
    seen = read_seen_patients(
        store, train(store, out, processed, ["shenzhen", "montgomery"]), processed
    )
    assert seen.sources == ["montgomery", "shenzhen"]
    assert {p for p, _, _ in FILMS if seen.split_of(p) == "test"} == {"m3"}
    assert seen.split_of("of another set") == "test"
