"""The patients a network has seen: in training, or in model selection on the validation films."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.films.model_json import SourcesJson, read_trained_json
from jobs.films.rows import Split, processed_rows
from jobs.storage.manifest import Manifest, read_input
from jobs.storage.s3 import Store


@dataclass(frozen=True)
class SeenPatients:
    """The patients a network has seen.

    Attributes:
        sources: the sources of its training films, sorted.
        splits: train or val of each patient seen.
    """

    sources: list[str]
    splits: Mapping[str, Split]

    def split_of(self, patient: str) -> Split:
        """train or val; test for a patient used neither for training nor for model selection.

        A film of a source left out of training therefore tests, whatever split preprocess gave it,
        unless a source that was trained on has films of the same patient.
        """
        return self.splits.get(patient, "test")


def read_seen_patients(store: Store, trained: Manifest) -> SeenPatients:
    """The patients of the train and val films of the sources that model.json names."""
    processed = read_input(store, trained, "processed", "preprocess")
    model_json = read_trained_json(store, trained, SourcesJson)
    sources = sorted(model_json["data"]["train_sources"])
    splits = {
        row["patient"]: row["split"]
        for row in processed_rows(store, processed)
        if row["status"] == "ok" and row["source"] in sources and row["split"] != "test"
    }
    return SeenPatients(sources, splits)
