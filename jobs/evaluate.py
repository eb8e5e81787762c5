"""evaluate: predicted masks against the raw truth, at the films' own size."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.config import EvaluateConfig
from jobs.errors import ConfigError
from jobs.imaging import decode, geometry, masks
from jobs.manifest import Manifest, Row, read_manifest
from jobs.parallel import CPU_THREADS
from jobs.progress import track
from jobs.segmentation import metrics
from jobs.stage import Stage
from jobs.storage import Store

log = logging.getLogger(__name__)

RECIPE = "1"
SPLITS = ("test", "val", "train")
WORST_FILMS, WORST_COLUMNS, WORST_TILE = 12, 3, 360
COLUMNS = ("id", "patient", "source", "label", "split", "dice", "iou", "reason")

Triple = tuple[Row, Row, Row]
Mask = NDArray[np.bool_]


def run(config: EvaluateConfig, store: Store) -> Manifest:
    """Score every film that has a truth: Dice and IoU from its own pixels, a row a film.

    Both empty is 1, one of them empty is 0, and so is a film that could not be predicted. The
    figures to trust are those of the split `test`, which neither training nor a choice has seen.
    Raises ConfigError where predictions and split are of different films.
    """
    predictions = read_manifest(store, config.predictions, "predict")
    processed = read_manifest(store, config.processed, "preprocess")
    raw = _raw_of(store, predictions, processed)
    stage = Stage(
        store,
        config,
        job="evaluate",
        folder="evaluations",
        recipe=RECIPE,
        inputs={"predictions": predictions, "processed": processed, "raw": raw},
    )
    if found := stage.finished():
        return found
    total = raw.counts["films"]

    def work(triple: Triple) -> Row:
        return _score(store, raw, predictions, triple)

    triples = zip(*(m.rows(store) for m in (raw, processed, predictions)), strict=True)
    rows = list(
        track(stage.write_rows(triples, total, work, threads=CPU_THREADS), total, "evaluate")
    )
    scored = [row for row in rows if row["status"] == "ok"]
    figures = summarise(scored)
    text = json.dumps(figures, indent=2, allow_nan=False).encode() + b"\n"
    stage.add_file("metrics.json", text, "application/json")
    table = ({name: row[name] for name in COLUMNS if name in row} for row in scored)
    stage.add_table("per_film.csv", COLUMNS, table)
    worst = sorted(_of_split(scored, "test"), key=lambda row: row["dice"])[:WORST_FILMS]
    sheet = _worst_films(store, raw, predictions, worst)
    stage.add_file("worst.png", sheet, "image/png")
    test = figures["test"]
    headline = {"test_films": test["films"], "test_dice": test["dice"]["mean"]}
    headline |= {"test_dice_p05": test["dice"]["p05"], "test_iou": test["iou"]["mean"]}
    counts = {"films": total, "scored": len(scored), "skipped": total - len(scored)}
    return stage.finish(counts=counts, headline=headline)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean, 5th percentile and median of Dice and IoU for each split, and of test by group."""
    test = _of_split(rows, "test")
    figures: dict[str, Any] = {split: _figures(_of_split(rows, split)) for split in SPLITS}
    for name in ("source", "label"):
        groups = sorted({row[name] for row in test})
        figures[f"by_{name}"] = {
            group: _figures([row for row in test if row[name] == group]) for group in groups
        }
    return figures


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    return {"films": len(rows), **{name: _spread(rows, name) for name in ("dice", "iou")}}


def _spread(rows: Sequence[Row], name: str) -> dict[str, float] | None:
    """None where there are no films, since JSON has no NaN."""
    if not rows:
        return None
    values = np.array([row[name] for row in rows])
    figures = {"mean": values.mean(), "p05": np.percentile(values, 5), "median": np.median(values)}
    return {key: round(float(value), 6) for key, value in figures.items()}


def _of_split(rows: Iterable[Row], split: str) -> list[Row]:
    return [row for row in rows if row["split"] == split]


def _raw_of(store: Store, predictions: Manifest, processed: Manifest) -> Manifest:
    """The raw manifest that both were made from."""
    films, raw = predictions.inputs.get("films"), processed.inputs["raw"]
    if films is None or films["content_hash"] != raw["content_hash"]:
        raise ConfigError(
            f"{predictions.uri} and {processed.uri} are not of the same raw films: predict with "
            f"--films {raw['uri']}"
        )
    return read_manifest(store, raw["uri"], "download")


def _score(store: Store, raw: Manifest, predictions: Manifest, triple: Triple) -> Row:
    film, record, prediction = triple
    assert film["id"] == record["id"] == prediction["id"], "the three manifests are out of step"
    if record["status"] != "ok":
        return {"id": film["id"], "status": "skipped", "reason": record["reason"]}
    row = {name: record[name] for name in ("id", "patient", "source", "label", "split", "origin")}
    if prediction["status"] != "ok":
        return row | {"status": "ok", "dice": 0.0, "iou": 0.0, "reason": prediction["reason"]}
    predicted = _mask(store, predictions, prediction["mask"])
    truth = _truth(store, raw, film, predicted.shape)
    dice, iou = metrics.dice(truth, predicted), metrics.iou(truth, predicted)
    return row | {"status": "ok", "dice": round(dice, 6), "iou": round(iou, 6)}


def _truth(store: Store, raw: Manifest, film: Row, shape: tuple[int, int]) -> Mask:
    """The union of the film's masks; those of another size than the film come to its size."""
    truth = masks.merge([_mask(store, raw, entry) for entry in film["masks"].values()])
    if truth.shape == shape:
        return truth
    return geometry.resize(truth.astype(np.float32), *shape) >= 0.5


def _mask(store: Store, manifest: Manifest, entry: dict[str, Any]) -> Mask:
    return decode.decode_mask(store.read(manifest.uri_of(entry["key"]), sha256=entry["sha256"]))


def _worst_films(store: Store, raw: Manifest, predictions: Manifest, worst: Sequence[Row]) -> bytes:
    """The films of the lowest Dice, truth green and prediction red."""
    wanted = [row["id"] for row in worst]
    found: dict[str, tuple[Row, Row]] = {}
    for film, prediction in zip(raw.rows(store), predictions.rows(store), strict=True):
        if film["id"] in wanted:
            found[film["id"]] = film, prediction
    tiles = [
        (
            _overlay(store, raw, predictions, *found[row["id"]]),
            f"{row['id']} · Dice {row['dice']:.3f}",
        )
        for row in worst
    ]
    return decode.encode_png(masks.contact_sheet(tiles, columns=WORST_COLUMNS, tile=WORST_TILE))


def _overlay(
    store: Store, raw: Manifest, predictions: Manifest, film: Row, prediction: Row
) -> NDArray[np.uint8]:
    """The film, uint8 RGB, its longer side WORST_TILE pixels, with both borders drawn."""
    entry = film["film"]
    pixels = decode.decode_film(store.read(raw.uri_of(entry["key"]), sha256=entry["sha256"]))
    drawn = [(_truth(store, raw, film, pixels.shape), masks.TRUTH_COLOR)]
    if prediction["status"] == "ok":
        drawn.append((_mask(store, predictions, prediction["mask"]), masks.PREDICTION_COLOR))
    scale = WORST_TILE / max(pixels.shape)
    shape = [max(1, round(side * scale)) for side in pixels.shape]
    small = [
        (geometry.resize(mask.astype(np.float32), *shape) >= 0.5, color) for mask, color in drawn
    ]
    return masks.outline(geometry.resize(pixels, *shape), small, thickness=2)
