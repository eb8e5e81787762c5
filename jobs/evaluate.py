"""evaluate: predicted masks against the raw truth, at the films' own size."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import ConfigError
from jobs.films.seen_patients import Seen, read_seen
from jobs.films.training_pairs import chosen_sources
from jobs.imaging import decode, geometry, masks
from jobs.reports import calibration, summary
from jobs.runtime.parallel import CPU_THREADS
from jobs.runtime.profile import timed
from jobs.runtime.progress import track
from jobs.segmentation import metrics
from jobs.settings.config import EvaluateConfig
from jobs.storage.manifest import Manifest, Row, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)

RECIPE = "2"
WORST_FILMS, WORST_COLUMNS, WORST_TILE = 12, 3, 360
# dice, iou and quality from 0 to 1, hd95 in percent of the film's diagonal; split is what the
# film was to the network, so that one of a source left out of training says test.
COLUMNS = (
    *("id", "patient", "source", "label", "split"),
    *("dice", "iou", "hd95", "quality", "review", "reason"),
)
NOTHING_FOUND = {"dice": 0.0, "iou": 0.0, "hd95": metrics.FARTHEST}

Triple = tuple[Row, Row, Row]
Mask = NDArray[np.bool_]


def run(config: EvaluateConfig, store: Store) -> Manifest:
    """Score every film that has a truth: Dice, IoU and HD95 from its own pixels, a row a film.

    Both empty is as good as can be, one of them empty as bad, and so is a film that could not be
    predicted. The figures to trust are those of `test`: of films of patients whom neither training
    nor a choice has seen, and of `config.test_sources` where these are given.
    Raises ConfigError where predictions and split are of different films, or a source has none.
    """
    predictions = read_manifest(store, config.predictions, "predict")
    processed = read_manifest(store, config.processed, "preprocess")
    raw = _raw_of(store, predictions, processed)
    trained = read_manifest(store, predictions.inputs["trained"]["uri"], "train")
    sources = chosen_sources(processed, "--test-sources", config.test_sources)
    inputs = {"predictions": predictions, "processed": processed, "raw": raw, "trained": trained}
    stage = WorkFolder(
        store, config, job="evaluate", folder="evaluations", recipe=RECIPE, inputs=inputs
    )
    if found := stage.finished():
        return found
    total = raw.counts["films"]
    seen = read_seen(store, trained)
    work = _Scorer(store, raw, predictions, seen, sources)
    triples = zip(*(m.rows(store) for m in (raw, processed, predictions)), strict=True)
    rows = stage.write_rows(triples, total, work, threads=CPU_THREADS)
    scored = [row for row in track(rows, total, "evaluate") if row["status"] == "ok"]
    told = _write_files(stage, scored, seen)
    counts = {"films": total, "scored": len(scored), "skipped": total - len(scored)}
    return stage.finish(counts=counts, headline=_headline(told["test"]))


def _write_files(stage: WorkFolder, scored: Sequence[Row], seen: Seen) -> dict[str, Any]:
    """metrics.json, whose content is returned, per_film.csv and worst.png."""
    store, inputs = stage.store, stage.inputs
    tested = [row for row in scored if row["tested"]]
    if not tested:
        log.warning("no film tests this network: it saw the patients of all that are asked for")
    told = summary.summarise(scored, seen.sources)
    told["calibration"] = calibration.measure(
        store, inputs["processed"], inputs["trained"], {row["id"] for row in tested}
    )
    text = json.dumps(told, indent=2, allow_nan=False).encode() + b"\n"
    stage.add_file("metrics.json", text, "application/json")
    table = ({name: row[name] for name in COLUMNS if name in row} for row in scored)
    stage.add_table("per_film.csv", COLUMNS, table)
    worst = sorted(tested, key=lambda row: row["dice"])[:WORST_FILMS]
    sheet = _worst_films(store, inputs["raw"], inputs["predictions"], worst)
    stage.add_file("worst.png", sheet, "image/png")
    return told


def _headline(test: Mapping[str, Any]) -> dict[str, Any]:
    """The few test figures to print; those of no film are None."""
    dice, iou, hd95 = (test[name] or {} for name in ("dice", "iou", "hd95"))
    return {
        "test_films": test["films"],
        "test_dice": dice.get("mean"),
        "test_dice_low": dice.get("low"),
        "test_dice_high": dice.get("high"),
        "test_dice_p05": dice.get("p05"),
        "test_iou": iou.get("mean"),
        "test_hd95": hd95.get("mean"),
    }


@dataclass(frozen=True)
class _Scorer:
    """Makes the row of a film from its rows in the three manifests; threads share it."""

    store: Store
    raw: Manifest
    predictions: Manifest
    seen: Seen
    sources: Collection[str]

    def __call__(self, triple: Triple) -> Row:
        film, record, prediction = triple
        assert film["id"] == record["id"] == prediction["id"], "the manifests are out of step"
        if record["status"] != "ok":
            return {"id": film["id"], "status": "skipped", "reason": record["reason"]}
        row = {name: record[name] for name in ("id", "patient", "source", "label", "origin")}
        split = self.seen.split_of(record["patient"])
        tested = split == "test" and record["source"] in self.sources
        row |= {"status": "ok", "split": split, "tested": tested}
        if prediction["status"] != "ok":
            return row | NOTHING_FOUND | {"reason": prediction["reason"]}
        # What predict says of its own mask; earlier predictions do not.
        said = {name: prediction[name] for name in ("quality", "review") if name in prediction}
        return row | self._scores(film, prediction) | said

    def _scores(self, film: Row, prediction: Row) -> dict[str, float]:
        predicted = _mask(self.store, self.predictions, prediction["mask"])
        truth = _truth(self.store, self.raw, film, predicted.shape)
        with timed("compute"):
            found = {
                "dice": metrics.dice(predicted, truth),
                "iou": metrics.iou(predicted, truth),
                "hd95": metrics.hd95(predicted, truth),
            }
        return {name: round(score, 6) for name, score in found.items()}


def _raw_of(store: Store, predictions: Manifest, processed: Manifest) -> Manifest:
    """The raw manifest that both were made from."""
    films, raw = predictions.inputs.get("films"), processed.inputs["raw"]
    if films is None or films["content_hash"] != raw["content_hash"]:
        raise ConfigError(
            f"{predictions.uri} and {processed.uri} are not of the same raw films: predict with "
            f"--films {raw['uri']}"
        )
    return read_manifest(store, raw["uri"], "download")


def _truth(store: Store, raw: Manifest, film: Row, shape: tuple[int, int]) -> Mask:
    """The union of the film's masks; those of another size than the film come to its size."""
    truth = masks.merge([_mask(store, raw, entry) for entry in film["masks"].values()])
    if truth.shape == shape:
        return truth
    return geometry.resize(truth.astype(np.float32), *shape) >= 0.5


def _mask(store: Store, manifest: Manifest, entry: dict[str, Any]) -> Mask:
    data = store.read(manifest.uri_of(entry["key"]), sha256=entry["sha256"])
    with timed("decode"):
        return decode.decode_mask(data)


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
