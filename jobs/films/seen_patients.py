"""Which patients a network has seen: those it learned from, and those on whom it was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.films.training_pairs import sources_of
from jobs.storage.manifest import Manifest, read_manifest
from jobs.storage.s3 import Store


@dataclass(frozen=True)
class Seen:
    """`sources`: whose films it was trained on. `splits`: train or val of each patient seen."""

    sources: list[str]
    splits: Mapping[str, str]

    def split_of(self, patient: str) -> str:
        """train or val; test of a patient whose films neither training nor a choice has seen.

        So a film of a source that was left out of training tests, whatever its own split is, but
        not where a source that was not left out has films of the same patient.
        """
        return self.splits.get(patient, "test")


def read_seen(store: Store, trained: Manifest) -> Seen:
    """What model.json and the films that it was trained on say; without train_sources, all."""
    processed = read_manifest(store, trained.inputs["processed"]["uri"], "preprocess")
    data = json.loads(trained.read_file(store, "model.json"))["data"]
    sources = sorted(data.get("train_sources", sources_of(processed)))
    splits = {
        row["patient"]: row["split"]
        for row in processed.rows(store)
        if row["status"] == "ok" and row["source"] in sources and row["split"] != "test"
    }
    return Seen(sources, splits)
