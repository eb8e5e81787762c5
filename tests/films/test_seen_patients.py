"""seen_patients: the patients of the training and validation films of the sources trained on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from jobs.errors import ConfigError
from jobs.films.known_looks import KnownLooks, looks_text
from jobs.films.seen_patients import read_seen_patients, seen_by_package
from jobs.imaging.perceptual_hash import MOST_BITS
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


ORIGIN = {"version": "starter-1", "sha256": "0" * 64}


def look(number: int, differing: int = 0) -> bytes:
    """The hash of film `number`, random bits, with the first `differing` of them turned."""
    bits = np.random.default_rng(number).integers(0, 2, 256, dtype=np.uint8)
    bits[:differing] ^= 1
    return np.packbits(bits).tobytes()


@pytest.fixture
def processed(store: Store, out: str) -> Manifest:
    config = PreprocessConfig(raw=f"{out}/manifest.json", out=out)
    work_folder = WorkFolder(store, config, job="preprocess", folder="processed", recipe="test")
    rows: list[dict[str, Any]] = [
        {
            **OK,
            "id": f"{source}-{patient}",
            "patient": patient,
            "source": source,
            "split": split,
            "looks": look(number).hex(),
        }
        for number, (patient, source, split) in enumerate(FILMS)
    ]
    for _ in work_folder.write_rows([*rows, QUARANTINED], len(rows) + 1, lambda row: row):
        pass
    return work_folder.finish(counts={}, headline={})


def train(
    store: Store,
    out: str,
    processed: Manifest,
    sources: list[str],
    looks: list[bytes] | None = None,
    origin: dict[str, str] | None = None,
) -> Manifest:
    """A trained manifest whose model.json names `sources` as its training sources.

    `looks` are those of the films that the weights of `origin`, which it started from, have seen.
    """
    work_folder = WorkFolder(
        store,
        TrainConfig(processed=processed.uri, out=out),
        job="train",
        folder="trained",
        recipe="test",
        inputs={"processed": processed},
    )
    data: dict[str, Any] = {"train_sources": sources}
    model_json: dict[str, Any] = {"data": data}
    if looks is not None:
        data["looks"] = looks_text(looks)
    if origin:
        model_json["training"] = {"init_from": origin}
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
    trained = train(store, out, processed, ["shenzhen", "montgomery"])
    seen = read_seen_patients(store, trained, processed)
    assert seen.sources == ["montgomery", "shenzhen"]
    assert {p for p, _, _ in FILMS if seen.split_of(p) == "test"} == {"m3"}
    assert seen.split_of("of another set") == "test"


def test_films_that_look_like_those_of_the_start_are_seen_and_counted(
    store: Store, out: str, processed: Manifest
) -> None:
    """m3 is test by its split, s1 of a source left out, m2 val in any case."""
    known = [look(number, MOST_BITS) for number in (1, 2, 3)]
    trained = train(store, out, processed, ["montgomery"], known, ORIGIN)
    seen = read_seen_patients(store, trained, processed)
    assert seen.start == {**ORIGIN, "films": 3}
    splits = {patient: seen.split_of(patient) for patient in ("m1", "m2", "m3", "s1", "s2")}
    assert splits == {"m1": "train", "m2": "val", "m3": "train", "s1": "train", "s2": "test"}


def test_films_that_differ_in_more_bits_are_others(
    store: Store, out: str, processed: Manifest
) -> None:
    known = [look(2, MOST_BITS + 1)]
    trained = train(store, out, processed, ["montgomery"], known, ORIGIN)
    seen = read_seen_patients(store, trained, processed)
    assert seen.start == {**ORIGIN, "films": 0} and seen.split_of("m3") == "test"


def test_of_a_start_without_looks_the_number_is_not_known(
    store: Store, out: str, processed: Manifest
) -> None:
    trained = train(store, out, processed, ["montgomery"], None, ORIGIN)
    assert read_seen_patients(store, trained, processed).start == {**ORIGIN, "films": None}
    plain = train(store, f"{out}/plain", processed, ["montgomery"])
    assert read_seen_patients(store, plain, processed).start is None


def test_a_package_has_seen_its_own_split_or_what_looks_like_its_films(
    store: Store, out: str, processed: Manifest
) -> None:
    own = {"data": {"train_sources": ["montgomery"], "processed": processed.content_hash}}
    seen = seen_by_package(store, "s3://lung/models/a/v1", own, processed)
    assert seen.splits == {"m1": "train", "m2": "val", "both": "train"}
    data = {"train_sources": ["custom"], "looks": looks_text([look(2), look(3)])}
    elsewhere = seen_by_package(store, "s3://lung/models/a/v1", {"data": data}, processed)
    assert elsewhere.splits == {"m3": "train", "s1": "train"}


@pytest.mark.parametrize(
    "model_json",
    [
        {},
        {"data": {"train_sources": ["custom"], "processed": "other"}},
        {
            "data": {"train_sources": ["custom"], "looks": looks_text([look(2)])},
            "training": {"init_from": ORIGIN},
        },
    ],
)
def test_a_package_of_films_that_are_not_known_is_refused(
    store: Store, processed: Manifest, model_json: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"s3://lung/models/a/v1 .* is not known: give the"):
        seen_by_package(store, "s3://lung/models/a/v1", model_json, processed)


def test_looks_are_written_once_each_in_an_order_of_their_own() -> None:
    one, other = look(1), look(2)
    text = looks_text([other, one, other])
    assert text == looks_text([one, other])
    known = KnownLooks.of({"data": {"looks": text}}, {"data": {}}, {})
    assert len(known) == 2 and {bytes(item) for item in known.hashes} == {one, other}


def test_a_row_of_an_earlier_version_looks_like_none() -> None:
    known = KnownLooks.of({"data": {"looks": looks_text([look(1)])}})
    rows: Any = [{"looks": look(1).hex()}, {}, {"looks": look(5).hex()}]
    assert [known.has(item) for item in rows] == [True, False, False]
    assert known.count(rows) == 1
