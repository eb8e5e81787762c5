"""predict and evaluate on a network that is made up: what is right can be told by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from jobs import download, errors, evaluate, predict, preprocess
from jobs.config import (
    DownloadConfig,
    EvaluateConfig,
    PredictConfig,
    PreprocessConfig,
    TrainConfig,
)
from jobs.imaging import decode
from jobs.manifest import Manifest
from jobs.segmentation import inference
from jobs.stage import Stage
from jobs.storage import Store
from tests.films import draw_pair, png, write_montgomery

HEIGHT, WIDTH = 160, 128


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write_montgomery(tmp_path / "films", 24)
    return tmp_path / "films"


@pytest.fixture
def raw(store: Store, out: str, films: Path) -> Manifest:
    return download.run(DownloadConfig(source=films.as_uri(), out=out), store)


@pytest.fixture
def processed(store: Store, out: str, raw: Manifest) -> Manifest:
    return preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=64), store)


@pytest.fixture
def trained(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    """A network that calls dark what is lung: on these films nearly right, and known exactly."""
    stage = Stage(
        store,
        TrainConfig(processed=processed.uri, out=out),
        job="train",
        folder="trained",
        recipe="test",
        inputs={"processed": processed},
    )
    about = {
        "architecture": {},
        "recipe": {"spatial_size": 64, "threshold": 0.5, "precision": "auto"},
    }
    stage.add_file("model.json", json.dumps(about).encode())
    stage.add_file("model.safetensors", b"")
    monkeypatch.setattr(inference, "load_model", lambda weights, architecture: None)
    monkeypatch.setattr(
        inference,
        "probabilities",
        lambda model, images, precision: (images < 125).astype(np.float32),
    )
    return stage.finish(counts={}, headline={})


def run(store: Store, out: str, trained: Manifest, films: str, **changes: Any) -> Manifest:
    config = PredictConfig(trained=trained.uri, films=films, out=out, **changes)
    return predict.run(config, store)


def mask_of(store: Store, made: Manifest, row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(store.read(made.uri_of(row["mask"]["key"]))))


def test_each_mask_is_a_1_bit_png_of_its_films_own_size(
    store: Store, out: str, trained: Manifest, raw: Manifest
) -> None:
    made = run(store, out, trained, raw.uri)
    assert made.counts == {"films": 24, "masks": 24, "failed": 0}
    for row in made.rows(store):
        mask = mask_of(store, made, row)
        assert (mask.mode, mask.size) == ("1", (WIDTH, HEIGHT))
        assert row["lung_fraction"] == pytest.approx(np.array(mask).mean(), abs=1e-6)


def test_a_bad_film_is_a_row_with_its_error(
    store: Store, out: str, trained: Manifest, films: Path
) -> None:
    (films / "Montgomery/MontgomerySet/CXR_png/MCUCXR_0003_1.png").write_bytes(b"not a film")
    raw = download.run(DownloadConfig(source=films.as_uri(), out=out), store)
    made = run(store, out, trained, raw.uri)
    assert made.counts == {"films": 24, "masks": 23, "failed": 1}
    table = csv.DictReader(io.StringIO(made.read_file(store, "predictions.csv").decode()))
    rows = {row["id"]: row for row in table}
    assert len(rows) == 24
    assert rows["MCUCXR_0003_1"]["status"] == "failed"
    assert "undecodable" in rows["MCUCXR_0003_1"]["reason"]
    assert rows["MCUCXR_0004_0"]["mask"] == "masks/MCUCXR_0004_0.png"


def test_any_prefix_of_films_will_do(store: Store, out: str, trained: Manifest) -> None:
    store.write(f"{out}/inbox/monday/a.png", png(draw_pair(1)[0]))
    store.write(f"{out}/inbox/monday/b.PNG", png(draw_pair(2, 90, 70)[0]))
    store.write(f"{out}/inbox/notes.txt", b"not a film")
    made = run(store, out, trained, f"{out}/inbox")
    sizes = {row["id"]: mask_of(store, made, row).size for row in made.rows(store)}
    assert sizes == {"a": (128, 160), "b": (70, 90)}


def test_a_processed_manifest_is_a_film_set_too(
    store: Store, out: str, trained: Manifest, processed: Manifest
) -> None:
    made = run(store, out, trained, processed.uri)
    assert {(row["height"], row["width"]) for row in made.rows(store)} == {(64, 64)}


def test_shards_together_make_the_manifest_of_one(
    store: Store, out: str, trained: Manifest, raw: Manifest
) -> None:
    whole = run(store, out, trained, raw.uri)
    parts = [
        run(store, out, trained, raw.uri, shard=f"{i}/3", force=True, run_id="parts")
        for i in (3, 1, 2)
    ]
    assert [store.exists(part.uri) for part in parts] == [True] * 3
    assert len({part.uri for part in parts}) == 1
    assert parts[-1].content_hash == whole.content_hash


def test_what_was_done_is_not_done_again(
    store: Store, out: str, trained: Manifest, raw: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def dies_late(model: Any, images: Any, precision: str) -> Any:
        seen.append(1)
        if len(seen) == 20:
            raise KeyboardInterrupt
        return (images < 125).astype(np.float32)

    monkeypatch.setattr(inference, "probabilities", dies_late)
    with pytest.raises(KeyboardInterrupt):
        run(store, out, trained, raw.uri)
    seen.clear()
    assert run(store, out, trained, raw.uri).counts["masks"] == 24
    assert len(seen) <= 16, "the first part of 8 was kept"


def test_dice_and_iou_are_those_of_scikit_learn_at_the_films_own_size(
    store: Store, out: str, trained: Manifest, raw: Manifest, processed: Manifest
) -> None:
    predictions = run(store, out, trained, raw.uri)
    config = EvaluateConfig(predictions=predictions.uri, processed=processed.uri, out=out)
    made = evaluate.run(config, store)
    masks = {
        row["id"]: np.array(mask_of(store, predictions, row)) for row in predictions.rows(store)
    }
    by_hand = {}
    for row in made.rows(store):
        number = int(row["id"].split("_")[1])
        _, left, right = draw_pair(number)
        truth = (left | right).ravel()
        by_hand[row["id"]] = f1_score(truth, masks[row["id"]].ravel())
        assert row["dice"] == pytest.approx(by_hand[row["id"]], abs=1e-6)
        assert row["iou"] == pytest.approx(jaccard_score(truth, masks[row["id"]].ravel()), abs=1e-6)
    test = [by_hand[row["id"]] for row in made.rows(store) if row["split"] == "test"]
    figures = json.loads(made.read_file(store, "metrics.json"))
    assert figures["test"]["films"] == len(test) == processed.counts["test"]
    assert figures["test"]["dice"] == {
        "mean": pytest.approx(np.mean(test), abs=1e-6),
        "p05": pytest.approx(np.percentile(test, 5), abs=1e-6),
        "median": pytest.approx(np.median(test), abs=1e-6),
    }
    assert figures["by_source"]["montgomery"] == figures["test"]
    assert sum(group["films"] for group in figures["by_label"].values()) == len(test)
    assert made.read_file(store, "worst.png").startswith(b"\x89PNG")


def test_a_film_that_could_not_be_predicted_scores_nothing(
    store: Store,
    out: str,
    trained: Manifest,
    raw: Manifest,
    processed: Manifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = decode.decode_film, []

    def fails_once(data: bytes) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise decode.ImageError("truncated")
        return real(data)

    with monkeypatch.context() as patch:
        patch.setattr(decode, "decode_film", fails_once)
        predictions = run(store, out, trained, raw.uri)
    (failed,) = [row["id"] for row in predictions.rows(store) if row["status"] == "failed"]
    config = EvaluateConfig(predictions=predictions.uri, processed=processed.uri, out=out)
    rows = {row["id"]: row for row in evaluate.run(config, store).rows(store)}
    assert rows[failed]["dice"] == rows[failed]["iou"] == 0.0
    assert rows[failed]["reason"] == "truncated"


def test_predictions_of_other_films_are_refused(
    store: Store, out: str, trained: Manifest, processed: Manifest
) -> None:
    store.write(f"{out}/inbox/a.png", png(draw_pair(1)[0]))
    predictions = run(store, out, trained, f"{out}/inbox")
    config = EvaluateConfig(predictions=predictions.uri, processed=processed.uri, out=out)
    with pytest.raises(errors.ConfigError, match="not of the same raw films"):
        evaluate.run(config, store)


def test_a_split_without_films_has_no_figures_and_no_nan() -> None:
    figures = evaluate.summarise([])
    assert figures["test"] == {"films": 0, "dice": None, "iou": None}
    assert "NaN" not in json.dumps(figures)
