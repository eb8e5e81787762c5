"""publish: the champion rule, the model package and run.json, on real manifests in a real S3."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.errors import BadDataError, ConfigError, ConflictError
from jobs.models import champion, contest_films, package
from jobs.models.champion_rule import Decision
from jobs.reports import page
from jobs.storage.manifest import FileEntry, Manifest, hash_entries, read_manifest
from tests.support.published import SIZE, Chain, call_dark_lung, chain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("films")) as built:
        yield built


@pytest.fixture
def name() -> str:
    """A model that no other test publishes."""
    return uuid.uuid4().hex


def pixels(made: Chain, row: dict[str, Any], kind: str) -> np.ndarray[Any, Any]:
    data = made.store.read(made.processed.uri_of(row[kind]["key"]))
    return np.array(Image.open(io.BytesIO(data)))


def val_dice_of(made: Chain, rows: float, columns: float = 1.0) -> float:
    """Mean over the validation films of 2 |A and B| / (|A| + |B|), counted here."""
    scores = []
    for row in made.films_of("val"):
        film, truth = pixels(made, row, "image"), pixels(made, row, "mask")
        network = {"rows": rows, "columns": columns, "size": SIZE, "special": {}}
        found = call_dark_lung(network, film[np.newaxis], precision="auto")[0] > 0
        scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    return float(np.mean(scores))


def test_the_first_model_that_reaches_the_minimum_becomes_the_champion(
    made: Chain, name: str
) -> None:
    five = made.five(0.7)
    published = made.publish(five, name=name, run_id="one")
    entry = made.champion(name)
    assert entry["version"] == five["trained"].fingerprint
    assert entry["run_id"] == "one"
    assert entry["model"] == f"{made.out}/models/{name}/{five['trained'].fingerprint}"
    assert entry["val_dice"] == pytest.approx(val_dice_of(made, 0.7), abs=1e-4)
    assert published.headline == {
        "champion": "first",
        "val_dice": entry["val_dice"],
        "test_dice": five["evaluation"].headline["test_dice"],
    }


def test_a_model_below_the_minimum_is_kept_but_no_champion(made: Chain, name: str) -> None:
    published = made.publish(made.five(0.7), name=name, min_dice=0.99)
    assert published.headline["champion"] == "none"
    assert made.store.exists(published.details["model"] + "/model.safetensors")
    assert not made.store.exists(f"{made.out}/models/{name}/champion.json")


def test_a_model_trained_anew_to_other_weights_is_another_version(made: Chain, name: str) -> None:
    """As on a GPU after its folder was deleted: the same settings, not the same bits."""
    five = made.five(0.7)
    version = five["trained"].fingerprint
    former = f"{made.out}/models/{name}/{version}"
    made.store.write_json(f"{former}/model.json", {"weights": {"sha256": "0" * 64}})
    published = made.publish(five, name=name)
    weights = five["trained"].read_file(made.store, "model.safetensors")
    sha256 = hashlib.sha256(weights).hexdigest()
    assert published.details["model"] == f"{former}-{sha256[:8]}"
    assert made.champion(name)["version"] == f"{version}-{sha256[:8]}"
    assert made.store.read(f"{former}-{sha256[:8]}/model.safetensors") == weights
    assert made.store.read_json(f"{former}/model.json") == {"weights": {"sha256": "0" * 64}}
    assert made.publish(five, name=name, run_id="again").headline["champion"] == "kept"


def test_only_a_better_model_replaces_the_champion(made: Chain, name: str) -> None:
    said = {}
    for rows in (0.6, 0.5, 0.7):
        published = made.publish(made.five(rows), name=name)
        said[rows] = published.headline["champion"]
    assert said == {0.6: "first", 0.5: "kept", 0.7: "replaced"}
    assert made.champion(name)["version"] == made.five(0.7)["trained"].fingerprint


def test_a_model_that_is_better_on_test_but_worse_on_validation_does_not_win(
    made: Chain, name: str
) -> None:
    first = made.publish(made.five(0.6), name=name)
    sums = [str(pixels(made, row, "image").sum()) for row in made.films_of("val")]
    second = made.publish(made.five(0.7, special=dict.fromkeys(sums, 0.55)), name=name)
    assert second.headline["test_dice"] > first.headline["test_dice"]
    assert second.headline["val_dice"] < first.headline["val_dice"]
    assert second.headline["champion"] == "kept"


def test_the_same_version_again_changes_nothing(made: Chain, name: str) -> None:
    five = made.five(0.7)
    made.publish(five, name=name, run_id="one")
    prefix = f"{made.out}/models/{name}/"
    before = list(made.store.list_objects(prefix))
    again = made.publish(five, name=name, run_id="two")
    assert again.headline["champion"] == "kept"
    assert list(made.store.list_objects(prefix)) == before
    assert made.champion(name)["run_id"] == "one"


def test_a_run_that_is_tried_again_says_again_that_its_model_won(made: Chain, name: str) -> None:
    made.publish(made.five(0.6), name=name, run_id="one")
    better = made.five(0.7)
    first_try = made.publish(better, name=name, run_id="two")
    entry = made.champion(name)
    second_try = made.publish(better, name=name, run_id="two")
    assert second_try.headline["champion"] == "replaced"
    assert second_try.details["champion"] == first_try.details["champion"]
    assert made.champion(name) == entry


def test_a_champion_is_not_scored_again_on_the_films_on_which_it_won(
    made: Chain, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    five = made.five(0.7)
    first = made.publish(five, name=name, run_id="one")
    monkeypatch.setattr(contest_films, "dices", None)
    again = made.publish(five, name=name, run_id="two")
    assert again.headline == first.headline | {"champion": "kept"}


def test_a_champion_of_another_size_is_scored_at_its_own(made: Chain, name: str) -> None:
    made.publish(made.five(0.7, size=32), name=name)
    decided = made.publish(made.five(0.6), name=name).details["champion"]
    assert decided["outcome"] == "kept"
    assert decided["champion_dice"] == pytest.approx(val_dice_of(made, 0.7), abs=0.05)
    assert decided["champion_dice"] > decided["val_dice"]


def test_a_champion_of_another_fit_sees_films_in_its_own(made: Chain, name: str) -> None:
    row = made.films_of("val")[0]
    shape = row["width"] / row["height"]
    assert shape < 1  # between black bars on both sides a column lies nearer to the middle
    letterboxed = made.five(1.0, more={"fit": "letterbox", "columns": 0.74})
    made.publish(letterboxed, name=name)
    decided = made.publish(made.five(0.3), name=name).details["champion"]
    expected = val_dice_of(made, 1.0, (0.74 - (1 - shape) / 2) / shape)
    assert decided["champion_dice"] == pytest.approx(expected, abs=0.02)
    assert abs(expected - val_dice_of(made, 1.0, 0.74)) > 0.04


def test_a_champion_that_another_run_named_meanwhile_is_the_one_to_beat(
    made: Chain, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = made.five(0.8)
    decide = champion.decide

    def interrupted(*arguments: Any) -> Decision:
        monkeypatch.setattr(champion, "decide", decide)
        made.publish(better, name=name, run_id="other")
        return decide(*arguments)

    monkeypatch.setattr(champion, "decide", interrupted)
    published = made.publish(made.five(0.7), name=name)
    assert published.headline["champion"] == "kept"
    assert made.champion(name)["run_id"] == "other"


def test_a_second_conflict_is_left_to_the_next_try(
    made: Chain, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.publish(made.five(0.6), name=name)
    uri = f"{made.out}/models/{name}/champion.json"
    decide, dates = champion.decide, itertools.count()

    def interrupted(*arguments: Any) -> Decision:
        made.store.write_json(uri, made.champion(name) | {"since": str(next(dates))})
        return decide(*arguments)

    monkeypatch.setattr(champion, "decide", interrupted)
    with pytest.raises(ConflictError):
        made.publish(made.five(0.7), name=name)


def test_a_champion_file_that_names_no_version_is_bad_data(made: Chain, name: str) -> None:
    made.store.write_json(f"{made.out}/models/{name}/champion.json", {"model": "?"})
    with pytest.raises(BadDataError, match="delete it"):
        made.publish(made.five(0.7), name=name)


def test_the_package_says_what_the_model_is_made_of_and_for(made: Chain, name: str) -> None:
    five = made.five(0.7)
    folder = made.publish(five, name=name).details["model"]
    about = made.store.read_json(f"{folder}/model.json")
    weights = made.store.read(f"{folder}/model.safetensors", sha256=about["weights"]["sha256"])
    assert weights == five["trained"].read_file(made.store, "model.safetensors")
    assert about["version"] == five["trained"].fingerprint
    assert about["recipe"] == {
        "spatial_size": SIZE,
        "threshold": 0.5,
        "fit": "stretch",
        "crop_borders": False,
        "precision": "auto",
    }
    figures = json.loads(five["evaluation"].read_file(made.store, "metrics.json"))
    assert about["metrics"] == {"epoch": 3, "val_dice": 0.9} | figures
    assert about["data"]["processed"] == made.processed.content_hash
    assert "National Library of Medicine" in about["licences"]["montgomery"]
    assert "not for diagnosis" in about["intended_use"]


def test_every_source_that_can_be_recognised_has_its_licence() -> None:
    from jobs.sources import catalogue

    assert package.LICENCES.keys() == {*catalogue.FAMILY_SOURCES.values(), "custom"}
    assert "CC BY-NC-SA 4.0" in package.LICENCES["shenzhen"]


@pytest.mark.parametrize("flag", ["raw", "processed", "trained", "predictions", "evaluation"])
def test_a_manifest_of_another_run_is_refused_by_name(
    made: Chain, name: str, flag: str, s3: dict[str, str], tmp_path: Any
) -> None:
    five = made.five(0.7)
    other = stranger(made, flag)
    with pytest.raises(ConfigError, match=f"--{flag} {other.uri}.*five manifests of one run"):
        made.publish({**five, flag: other}, name=name)
    assert list(made.store.list_objects(f"{made.out}/models/{name}/")) == []


def stranger(made: Chain, flag: str) -> Manifest:
    """A manifest of the right job that was made in another run of the same prefix."""
    if flag in ("trained", "predictions", "evaluation"):
        return made.five(0.5)[flag]
    manifest = getattr(made, flag)
    uri = manifest.uri.replace("/manifest.json", "-other/manifest.json")
    header = made.store.read_json(manifest.uri)
    header["files"].append({"key": "more.txt", "bytes": 1, "sha256": "f" * 64})
    entries = [FileEntry(**entry) for entry in header["files"] + header["parts"]]
    made.store.write_json(uri, header | {"content_hash": hash_entries(entries)})
    return read_manifest(made.store, uri)


def test_run_json_is_a_manifest_that_names_what_was_used(made: Chain, name: str) -> None:
    five = made.five(0.7)
    published = made.publish(five, name=name, run_id="told")
    assert published.uri == f"{made.out}/runs/told/run.json"
    assert read_manifest(made.store, published.uri, "publish") == published
    assert {n: entry["content_hash"] for n, entry in published.inputs.items()} == {
        n: manifest.content_hash for n, manifest in five.items()
    }
    jobs = {job["job"]: job for job in published.details["jobs"]}
    assert list(jobs) == ["download", "preprocess", "train", "predict", "evaluate"]
    assert jobs["preprocess"]["config"]["size"] == SIZE
    assert all(job["seconds"] >= 0 and job["reused"] is None for job in jobs.values())
    assert published.details["versions"]["numpy"] == np.__version__
    text = made.store.read(published.uri).decode()
    assert "NaN" not in text and "Infinity" not in text


def test_publishing_the_same_again_has_the_same_content_hash(made: Chain, name: str) -> None:
    five = made.five(0.7)
    hashes = [made.publish(five, name=name, run_id=run).content_hash for run in ("a", "b", "a")]
    assert len(set(hashes)) == 1
    assert made.publish(made.five(0.6), name=name).content_hash != hashes[0]


def test_run_json_comes_last(made: Chain, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> bytes:
        raise RuntimeError("no page")

    monkeypatch.setattr(page, "build", fail)
    with pytest.raises(RuntimeError):
        made.publish(made.five(0.7), name=name, run_id="cut-short")
    assert list(made.store.list_objects(f"{made.out}/runs/cut-short/")) == []


def test_the_results_of_the_tasks_tell_what_was_reused(made: Chain, name: str) -> None:
    five = made.five(0.7)
    results = f"{made.out}/runs/again/results"
    for task, manifest, reused in (
        ("download-1", five["raw"], True),
        ("predict-0-1", five["predictions"], True),
        ("predict-1-1", five["predictions"], False),
    ):
        result = {"manifest": manifest.uri, "reused": reused}
        made.store.write_json(f"{results}/{task}.json", result)
    published = made.publish(five, name=name, run_id="again")
    told = {job["job"]: job["reused"] for job in published.details["jobs"]}
    assert told["download"] is True
    assert told["predict"] is False
    assert told["train"] is None
