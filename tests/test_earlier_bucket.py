"""A bucket that version 0.1.0 wrote is read, or refused in one line that says what to do."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs import download, evaluate, inbox, predict, preprocess, publish, train
from jobs.errors import BadDataError, ConfigError
from jobs.imaging import decode
from jobs.segmentation import metrics
from jobs.settings.config import (
    DownloadConfig,
    EvaluateConfig,
    InboxConfig,
    PredictConfig,
    PreprocessConfig,
    PublishConfig,
    TrainConfig,
)
from jobs.storage.manifest import Manifest, read_manifest
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png

pytestmark = pytest.mark.slow

ARCHIVE = Path(__file__).parent / "fixtures" / "bucket-0.1.0.tar.xz"
OUT = "s3://lung/written-by-9e05334"  # the archive's manifests hold absolute URIs below it
MODELS = f"{OUT}/models/lung-unet"
JOB_OF = {
    "raw": "download",
    "processed": "preprocess",
    "trained": "train",
    "predictions": "predict",
    "evaluation": "evaluate",
}


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    """Every object of the bucket by its URI."""
    with tarfile.open(ARCHIVE) as archive:
        files = ((member.name, archive.extractfile(member)) for member in archive)
        return {f"{OUT}/{name}": file.read() for name, file in files if file is not None}


@pytest.fixture
def bucket(store: Store, objects: dict[str, bytes]) -> Store:
    """The bucket with every object that 0.1.0 left in it, and 0.1.0's champion."""
    present = {item.uri for item in store.list_objects(OUT + "/")}
    needed = (objects.keys() - present) | {f"{MODELS}/champion.json"}
    store.write_many((uri, objects[uri]) for uri in needed)
    return store


def old(store: Store, name: str) -> Manifest:
    """The manifest that a field of `PublishConfig` names, as 0.1.0 wrote it."""
    run = store.read_json(f"{OUT}/runs/first/run.json")
    return read_manifest(store, run["inputs"][name]["uri"], JOB_OF[name])


def incoming(store: Store) -> str:
    """The films that 0.1.0's run-local copied from the disk."""
    first = next(iter(store.list_objects(f"{OUT}/incoming/")))
    return "/".join(first.uri.split("/")[:6]) + "/"


def champion(store: Store) -> dict[str, Any]:
    entry: dict[str, Any] = store.read_json(f"{MODELS}/champion.json")
    return entry


def run_beside(store: Store, run_id: str, **training: Any) -> Manifest:
    """A whole run of this version on the same films: run.json."""
    raw = download.run(DownloadConfig(source=incoming(store), out=OUT), store)
    processed = preprocess.run(PreprocessConfig(raw=raw.uri, size=32, out=OUT), store)
    trained = train.run(
        TrainConfig(processed=processed.uri, network="small", out=OUT, **training), store
    )
    predictions = predict.run(PredictConfig(trained=trained.uri, films=raw.uri, out=OUT), store)
    evaluation = evaluate.run(
        EvaluateConfig(predictions=predictions.uri, processed=processed.uri, out=OUT), store
    )
    config = PublishConfig(
        raw=raw.uri,
        processed=processed.uri,
        trained=trained.uri,
        predictions=predictions.uri,
        evaluation=evaluation.uri,
        out=OUT,
        run_id=run_id,
        min_dice=0.1,
    )
    return publish.run(config, store)


def test_its_raw_films_are_found_done(bucket: Store) -> None:
    raw = download.run(DownloadConfig(source=incoming(bucket), out=OUT), bucket)
    assert raw.reused
    assert raw == old(bucket, "raw")


def test_its_champion_masks_new_films_and_none_a_second_time(bucket: Store) -> None:
    version = champion(bucket)["version"]
    image, left, right = draw_pair(7, 80, 64)
    bucket.write(f"{OUT}/inbox/new-3.png", png(image))
    masks = {
        item.uri: bucket.read(item.uri) for item in bucket.list_objects(f"{OUT}/masks/lung-unet/")
    }
    config = InboxConfig(inbox=f"{OUT}/inbox", out=OUT, run_id="weekly")
    result = inbox.run(config, bucket)
    assert result.headline["version"] == version
    assert (result.counts["films"], result.counts["new"], result.counts["masks"]) == (3, 1, 1)
    (row,) = csv.DictReader(io.StringIO(bucket.read(f"{OUT}/runs/weekly/masks.csv").decode()))
    assert row["film"] == f"{OUT}/inbox/new-3.png"
    assert row["mask"].startswith(f"{OUT}/masks/lung-unet/{version}/")
    mask = decode.decode_mask(bucket.read(row["mask"]))
    assert metrics.dice(mask, left | right) > 0.6
    assert {uri: bucket.read(uri) for uri in masks} == masks
    repeated = inbox.run(InboxConfig(inbox=f"{OUT}/inbox", out=OUT, run_id="again"), bucket)
    assert repeated.counts["new"] == 0


def test_its_champion_stays_beside_a_worse_network_of_a_new_run(bucket: Store) -> None:
    before = champion(bucket)
    run = run_beside(bucket, "worse", epochs=1, learning_rate=1e-6)
    decision = run.details["champion"]
    assert decision["outcome"] == "kept"
    assert decision["champion_dice"] == pytest.approx(before["val_dice"], abs=0.01)
    assert decision["val_dice"] < decision["champion_dice"]
    assert champion(bucket) == before


def test_its_champion_is_replaced_by_a_better_network_of_a_new_run(bucket: Store) -> None:
    before = champion(bucket)
    run = run_beside(bucket, "better", epochs=20, batch_size=4)
    decision = run.details["champion"]
    assert decision["outcome"] == "replaced"
    assert decision["champion_dice"] == pytest.approx(before["val_dice"], abs=0.01)
    after = champion(bucket)
    assert after["version"] == decision["version"] != before["version"]
    assert (after["run_id"], after["val_dice"]) == ("better", decision["val_dice"])
    assert bucket.exists(f"{MODELS}/{before['version']}/model.safetensors")


def predict_again(store: Store, films: str) -> Manifest:
    """The masks that this version makes with 0.1.0's network of the films of a manifest."""
    config = PredictConfig(
        trained=old(store, "trained").uri,
        films=old(store, films).uri,
        out=OUT,
        force=True,
        run_id="again",
    )
    predictions = predict.run(config, store)
    assert not predictions.reused
    assert (predictions.counts["masks"], predictions.counts["failed"]) == (24, 0)
    return predictions


def read_masks(store: Store, predictions: Manifest) -> dict[str, NDArray[np.bool_]]:
    uris = {row["id"]: predictions.uri_of(row["mask"]["key"]) for row in predictions.rows(store)}
    return {film: decode.decode_mask(store.read(uri)) for film, uri in uris.items()}


def test_its_network_masks_its_raw_films_as_it_did(bucket: Store) -> None:
    masks = read_masks(bucket, predict_again(bucket, "raw"))
    former = read_masks(bucket, old(bucket, "predictions"))
    assert masks.keys() == former.keys()
    # Another CPU may round a probability beside the threshold to its other side.
    assert all(np.mean(masks[film] == former[film]) > 0.99 for film in masks)


def test_its_processed_films_are_masked_too(bucket: Store) -> None:
    masks = read_masks(bucket, predict_again(bucket, "processed"))
    former = read_masks(bucket, old(bucket, "predictions"))
    assert masks.keys() == former.keys()
    for film, mask in masks.items():
        assert mask.shape == (32, 32)
        assert mask.mean() == pytest.approx(former[film].mean(), abs=0.03)


def test_its_network_masks_and_scores_are_read_once_preprocess_has_run_again(bucket: Store) -> None:
    """Rows say more now, so that a training of the former ones is not published with these."""
    processed = preprocess.run(
        PreprocessConfig(raw=old(bucket, "raw").uri, size=32, out=OUT), bucket
    )
    predictions, evaluation = old(bucket, "predictions"), old(bucket, "evaluation")
    config = EvaluateConfig(
        predictions=predictions.uri, processed=processed.uri, out=OUT, force=True, run_id="again"
    )
    scores = evaluate.run(config, bucket)
    assert not scores.reused
    assert scores.headline == pytest.approx(evaluation.headline, abs=1e-4)
    config_of_publish = PublishConfig(
        raw=old(bucket, "raw").uri,
        processed=processed.uri,
        trained=old(bucket, "trained").uri,
        predictions=predictions.uri,
        evaluation=scores.uri,
        out=OUT,
        run_id="again",
    )
    with pytest.raises(ConfigError, match=r"--trained .* was made from processed"):
        publish.run(config_of_publish, bucket)


@pytest.mark.parametrize("job", ["train", "evaluate", "publish"])
def test_its_processed_manifest_is_refused_in_one_line_with_the_remedy(
    bucket: Store, job: str
) -> None:
    uris: dict[str, Any] = {name: old(bucket, name).uri for name in JOB_OF}
    runs: dict[str, Callable[[], Manifest]] = {
        "train": lambda: train.run(TrainConfig(processed=uris["processed"], out=OUT), bucket),
        "evaluate": lambda: evaluate.run(
            EvaluateConfig(
                predictions=uris["predictions"], processed=uris["processed"], out=OUT, force=True
            ),
            bucket,
        ),
        "publish": lambda: publish.run(PublishConfig(out=OUT, run_id="again", **uris), bucket),
    }
    with pytest.raises(BadDataError) as refusal:
        runs[job]()
    message = str(refusal.value)
    assert message.startswith(uris["processed"])
    assert "version 0.1.0" in message and "run preprocess again" in message
    assert "\n" not in message
    assert refusal.value.exit_code == 65
