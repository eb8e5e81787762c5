"""The patients a network has seen: in training, or in model selection on the validation films."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import ConfigError
from jobs.films.known_looks import KnownLooks
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
        start: of a network that was trained from the weights of another one: their "version" and
            "sha256", and how many of the "films" these have seen, by their looks; None where that
            is not known.
    """

    sources: list[str]
    splits: Mapping[str, Split]
    start: Mapping[str, Any] | None = None

    def split_of(self, patient: str) -> Split:
        """train or val; test for a patient used neither for training nor for model selection.

        A film of a source left out of training therefore tests, whatever split preprocess gave it,
        unless a source that was trained on has films of the same patient. A patient with a film
        that looks like one of an earlier training is one of train.
        """
        return self.splits.get(patient, "test")


def read_seen_patients(store: Store, trained: Manifest, processed: Manifest) -> SeenPatients:
    """The patients of the train and val films of the sources that model.json names.

    `processed` has the films that are evaluated, which may be others than those trained on.
    """
    trained_on = read_input(store, trained, "processed", "preprocess")
    model_json = read_trained_json(store, trained, SourcesJson)
    return _seen(store, model_json, trained_on, processed)


def seen_by_package(
    store: Store, uri: str, model_json: Mapping[str, Any], processed: Manifest
) -> SeenPatients:
    """As `read_seen_patients`, of a package: by its split where it was trained on `processed`.

    A package that was trained on films elsewhere must have the looks of all, as the starter has.
    Raises ConfigError where it is not known which films it has seen.
    """
    data = model_json.get("data", {})
    if data.get("processed") == processed.content_hash:
        return _seen(store, model_json, processed, processed)
    if "looks" in data and "init_from" not in model_json.get("training", {}):
        return _seen(store, model_json, None, processed)
    raise ConfigError(
        f"{uri} was trained on other films than those of {processed.uri}, and which of these it "
        "has seen is not known: give the --processed that it was trained on, or run predict with "
        "the trained manifest of its run as --trained"
    )


def _seen(
    store: Store, model_json: Mapping[str, Any], trained_on: Manifest | None, processed: Manifest
) -> SeenPatients:
    sources = sorted(model_json["data"]["train_sources"])
    own: dict[str, Split] = {}
    if trained_on:
        own = {
            row["patient"]: row["split"]
            for row in processed_rows(store, trained_on)
            if row["status"] == "ok" and row["source"] in sources and row["split"] != "test"
        }
    known = KnownLooks.of(model_json)
    before: list[str] = []
    if len(known):
        rows = processed_rows(store, processed)
        before = [row["patient"] for row in rows if row["status"] == "ok" and known.has(row)]
    start = model_json.get("training", {}).get("init_from")
    if start:
        start = {**start, "films": len(before) if "looks" in model_json["data"] else None}
    seen_before: dict[str, Split] = dict.fromkeys(before, "train")
    return SeenPatients(sources, seen_before | own, start)
